//! The two word lists that made-up names are put together from.

/// First words: what a thing in the field looks like.
pub(crate) const FIRST: &[&str] = &[
    "amber", "apple", "ashen", "autumn", "barley", "bold", "brave", "breezy", "bright", "brisk",
    "bronze", "calm", "candid", "careful", "cheery", "chilly", "clear", "clever", "cloudy",
    "copper", "cosy", "crimson", "crisp", "dappled", "daring", "dewy", "dusky", "eager", "early",
    "earnest", "even", "fair", "fallow", "fern", "fleet", "flint", "fond", "frosty", "gallant",
    "gentle", "gilded", "glad", "golden", "grand", "green", "hale", "handy", "hardy", "hazel",
    "hearty", "hidden", "honest", "humble", "ivory", "jolly", "keen", "kind", "lively", "loyal",
    "lucid", "lunar", "mellow", "merry", "mild", "misty", "modest", "mossy", "neat", "nimble",
    "noble", "northern", "oaken", "olive", "patient", "placid", "plain", "plucky", "prompt",
    "proud", "quick", "quiet", "ready", "rosy", "ruddy", "rural", "rustic", "sandy", "serene",
    "sharp", "shady", "silent", "silver", "sleek", "snowy", "solid", "spry", "stable", "steady",
    "stout", "sturdy", "sunny", "swift", "tawny", "tender", "thrifty", "tidy", "timber", "tranquil",
    "trusty", "upland", "valiant", "velvet", "verdant", "violet", "warm", "wary", "western",
    "whole", "wild", "windy", "winter", "wise", "witty", "young",
];

/// Second words: what is found in and around an enclosure.
pub(crate) const SECOND: &[&str] = &[
    "acorn", "alder", "anvil", "arbour", "badger", "barn", "beacon", "beech", "birch", "bracken",
    "bramble", "brook", "byre", "cairn", "calf", "cart", "cedar", "clover", "cobble", "colt",
    "coppice", "cottage", "covert", "crane", "crofter", "curlew", "dale", "dell", "dove", "drover",
    "elder", "elm", "ewe", "falcon", "farrow", "fawn", "field", "finch", "fold", "ford", "foxglove",
    "furrow", "gable", "gander", "gate", "glade", "glen", "goose", "gorse", "grange", "grove",
    "hamlet", "hare", "harrow", "hawthorn", "hay", "heath", "hedge", "heron", "hollow", "holly",
    "hurdle", "kestrel", "kid", "lamb", "lane", "lapwing", "lark", "latch", "ledge", "linnet",
    "lodge", "mallow", "maple", "mare", "marsh", "martin", "meadow", "mill", "moor", "nettle",
    "oak", "orchard", "osier", "otter", "owl", "oxen", "paddock", "partridge", "pasture", "pear",
    "pebble", "pine", "plough", "pony", "poplar", "quail", "rafter", "ram", "reed", "ridge",
    "robin", "rook", "rowan", "rush", "sedge", "shepherd", "shire", "sorrel", "sparrow", "spinney",
    "spring", "stable", "starling", "stile", "swallow", "sycamore", "tarn", "thatch", "thistle",
    "thrush", "trough", "vale", "vetch", "wagon", "warbler", "weir", "willow", "wren", "yarrow",
    "yew",
];
