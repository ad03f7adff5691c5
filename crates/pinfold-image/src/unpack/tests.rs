//! Hostile and odd archives. Each row says what it tries and what must come of it.

use std::{fmt::Write as _, fs, io::Write as _, os::unix::fs::MetadataExt, path::PathBuf};

use proptest::prelude::*;

use super::*;

/// A tar made byte by byte, since no good writer would make these.
#[derive(Default)]
struct Made(Vec<u8>);

impl Made {
    fn raw(mut self, kind: u8, name: &[u8], link: &[u8], size: u64, data: &[u8]) -> Self {
        let mut block = [0u8; 512];
        block[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        block[100..108].copy_from_slice(b"0000644\0");
        block[108..116].copy_from_slice(b"0000000\0");
        block[116..124].copy_from_slice(b"0000000\0");
        block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        block[136..148].copy_from_slice(b"00000000001\0");
        block[148..156].copy_from_slice(b"        ");
        block[156] = kind;
        block[157..157 + link.len()].copy_from_slice(link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        if kind == b'3' || kind == b'4' {
            block[329..337].copy_from_slice(b"0000010\0");
            block[337..345].copy_from_slice(b"0000001\0");
        }
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, data: &str) -> Self {
        self.raw(b'0', name.as_bytes(), b"", data.len() as u64, data.as_bytes())
    }

    fn dir(self, name: &str) -> Self {
        self.raw(b'5', name.as_bytes(), b"", 0, b"")
    }

    fn link(self, name: &str, to: &str) -> Self {
        self.raw(b'2', name.as_bytes(), to.as_bytes(), 0, b"")
    }

    fn hard(self, name: &str, to: &str) -> Self {
        self.raw(b'1', name.as_bytes(), to.as_bytes(), 0, b"")
    }

    fn pax(self, records: &[(&str, &str)]) -> Self {
        let mut text = String::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            writeln!(text, "{length} {key}={value}").expect("a string takes all");
        }
        self.raw(b'x', b"pax", b"", text.len() as u64, text.as_bytes())
    }
}

/// A place with something beside it that must stay as it is.
struct Room {
    dir: tempfile::TempDir,
}

impl Room {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join("tree")).expect("made");
        fs::create_dir(dir.path().join("outside")).expect("made");
        fs::write(dir.path().join("outside/precious"), "untouched").expect("written");
        Self { dir }
    }

    fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    fn unpack_with(&self, made: &Made, options: &Options<'_>) -> Result<Report> {
        let result = unpack(&*made.0, &self.tree(), options);
        let outside = self.dir.path().join("outside");
        assert_eq!(fs::read_to_string(outside.join("precious")).expect("there"), "untouched");
        assert_eq!(fs::read_dir(&outside).expect("there").count(), 1, "something got out");
        assert_eq!(fs::metadata(outside.join("precious")).expect("there").nlink(), 1);
        result
    }

    #[expect(clippy::needless_pass_by_value, reason = "tests build it in place")]
    fn unpack(&self, made: Made) -> Result<Report> {
        self.unpack_with(&made, &options())
    }
}

fn options() -> Options<'static> {
    Options {
        limits: Limits { bytes: 1 << 20, files: 1000, time: Duration::from_mins(1) },
        whiteouts: Whiteouts::Oci,
        lowers: &[],
        owners: None,
    }
}

#[test]
fn hostile_archives_are_refused_and_reach_nothing() {
    let room = Room::new();
    let outside = room.dir.path().join("outside");
    let outside = outside.to_str().expect("UTF-8");
    let long = "a/".repeat(200) + "x";
    let part = "x".repeat(300);
    let rows: Vec<(&str, Made)> = vec![
        ("CVE-2001-1267: parent directory", Made::default().file("../outside/evil", "x")),
        ("inner parent directory", Made::default().file("a/../../outside/evil", "x")),
        ("parent directory alone", Made::default().dir("..")),
        (
            "symlink, then through it (Snyk zip-slip, tar form)",
            Made::default().link("s", "../outside").file("s/evil", "x"),
        ),
        (
            "absolute symlink, then through it",
            Made::default().link("s", outside).file("s/evil", "x"),
        ),
        (
            "symlink chain",
            Made::default().link("a", "b").link("b", "../outside").file("a/evil", "x"),
        ),
        (
            "symlink in the middle",
            Made::default().dir("d").link("d/s", "../../outside").file("d/s/evil", "x"),
        ),
        (
            "directory replaced by a symlink (CVE-2021-32803, node-tar)",
            Made::default().dir("d").link("d", "../outside").file("d/evil", "x"),
        ),
        ("hard link out by parent", Made::default().hard("h", "../outside/precious")),
        ("hard link to a host path", Made::default().hard("h", &format!("{outside}/precious"))),
        (
            "hard link through a symlink",
            Made::default().link("s", "../outside").hard("h", "s/precious"),
        ),
        ("hard link to nothing", Made::default().hard("h", "none")),
        ("hard link to a directory", Made::default().dir("d").hard("h", "d")),
        ("whiteout of ..", Made::default().file(".wh...", "")),
        ("whiteout of .", Made::default().file(".wh..", "")),
        ("whiteout of nothing", Made::default().file(".wh.", "")),
        (
            "whiteout through a symlink (CVE-2019-14271's family)",
            Made::default().link("s", "../outside").file("s/.wh.precious", ""),
        ),
        (
            "opaque through a symlink",
            Made::default().link("s", "../outside").file("s/.wh..wh..opq", ""),
        ),
        ("file where a directory is needed", Made::default().file("f", "").file("f/x", "")),
        ("root replaced by a link", Made::default().link("./", "../outside")),
        ("root replaced by a file", Made::default().file(".", "x")),
        ("pax path out", Made::default().pax(&[("path", "../outside/evil")]).file("ok", "x")),
        (
            "pax link out",
            Made::default().pax(&[("linkpath", "../outside/precious")]).hard("h", "k"),
        ),
        ("pax size of another entry", Made::default().pax(&[("size", "99999999")]).file("f", "x")),
        ("pax length wrong", Made::default().raw(b'x', b"p", b"", 6, b"9 a=b\n").file("f", "")),
        ("pax without end", Made::default().raw(b'x', b"p", b"", 3, b"12 ").file("f", "")),
        ("pax length zero", Made::default().raw(b'x', b"p", b"", 4, b"0 a\n").file("f", "")),
        ("too deep", Made::default().pax(&[("path", &long)]).file("f", "")),
        ("name too long", Made::default().pax(&[("path", &part)]).file("f", "")),
        ("path too long", Made::default().pax(&[("path", &"ab/".repeat(2000))]).file("f", "")),
        ("huge size, no data", Made::default().raw(b'0', b"f", b"", 0o777_7777_7777, b"")),
        ("over the limit", Made::default().file("f", &"x".repeat((1 << 20) + 1))),
        ("long-name bomb", Made::default().raw(b'L', b"l", b"", 0o777_7777_7777, b"")),
        ("unknown type", Made::default().raw(b'Z', b"f", b"", 0, b"")),
        ("empty name", Made::default().raw(b'0', b"", b"", 0, b"")),
        ("symlink to nothing", Made::default().link("s", "")),
        ("directory with data", Made::default().raw(b'2', b"s", b"x", 512, &[0; 512])),
        (
            "extensions without end",
            (0..40).fold(Made::default(), |made, _| made.raw(b'g', b"g", b"", 0, b"")),
        ),
        ("many files", (0..1001).fold(Made::default(), |made, n| made.file(&format!("f{n}"), ""))),
        (
            "sparse map out of order",
            Made::default()
                .pax(&[("GNU.sparse.map", "9,1,0,1"), ("GNU.sparse.size", "10")])
                .file("s", "xy"),
        ),
        (
            "sparse map longer than its data",
            Made::default()
                .pax(&[("GNU.sparse.map", "0,100"), ("GNU.sparse.size", "100")])
                .file("s", "xy"),
        ),
        (
            "sparse overflow",
            Made::default()
                .pax(&[("GNU.sparse.map", "18446744073709551615,2"), ("GNU.sparse.size", "3")])
                .file("s", "xy"),
        ),
    ];
    for (what, made) in rows {
        let room = Room::new();
        let result = room.unpack(made);
        assert!(
            matches!(result, Err(ImageError::Bad(_) | ImageError::Limit(_))),
            "{what}: {result:?}"
        );
    }
}

#[test]
fn odd_archives_unpack_as_others_do() {
    let room = Room::new();
    let report = room
        .unpack(
            Made::default()
                .dir("./")
                .file("/absolute", "stays inside")
                .file("deep/without/parents", "made")
                .link("anywhere", "/etc/passwd")
                .link("up", "../../outside")
                .raw(b'3', b"null", b"", 0, b"")
                .raw(b'4', b"disk", b"", 0, b"")
                .raw(b'6', b"pipe", b"", 0, b"")
                .raw(b'0', b"bytes-\xff\xfe", b"", 1, b"x")
                .file("twice", "first")
                .file("twice", "second")
                .file("was-file", "x")
                .dir("was-file")
                .dir("was-dir")
                .file("was-dir/inner", "x")
                .file("was-dir", "now a file")
                .file("one", "shared")
                .hard("two", "one")
                .hard("three", "./one")
                .pax(&[("path", &format!("{}/{}", "n".repeat(200), "m".repeat(200)))])
                .file("short", "long name")
                .pax(&[
                    ("mtime", "1700000000.5"),
                    ("SCHILY.xattr.user.note", "kept"),
                    ("SCHILY.xattr.user.overlay.opaque", "y"),
                    ("SCHILY.xattr.trusted.overlay.opaque", "y"),
                ])
                .file("noted", "x")
                .pax(&[("GNU.sparse.map", "4,2"), ("GNU.sparse.size", "10")])
                .file("sparse", "xy"),
        )
        .expect("all of it is fine");
    let tree = room.tree();
    let text = |name: &str| fs::read_to_string(tree.join(name)).expect(name);
    assert_eq!(text("absolute"), "stays inside");
    assert_eq!(text("deep/without/parents"), "made");
    assert_eq!(text("twice"), "second");
    assert!(tree.join("was-file").is_dir());
    assert_eq!(text("was-dir"), "now a file");
    assert_eq!(text("sparse"), "\0\0\0\0xy\0\0\0\0");
    assert_eq!(fs::metadata(tree.join("two")).expect("two").nlink(), 3);
    assert_eq!(fs::metadata(tree.join("noted")).expect("noted").mtime(), 1_700_000_000);
    assert_eq!(text(&format!("{}/{}", "n".repeat(200), "m".repeat(200))), "long name");
    assert_eq!(
        xattr::get(tree.join("noted"), "user.note").expect("read").as_deref(),
        Some(&b"kept"[..])
    );
    assert_eq!(xattr::get(tree.join("noted"), "user.overlay.opaque").expect("read"), None);
    assert_eq!(report.skipped.len(), 2, "devices are left out and reported: {report:?}");
    assert!(!tree.join("null").exists() && !tree.join("disk").exists());
}

#[test]
fn whiteouts_become_overlays_own() {
    let room = Room::new();
    room.unpack(
        Made::default()
            .file("gone/.wh.file", "")
            .dir("fresh")
            .file("fresh/.wh..wh..opq", "")
            .file("fresh/new", "x")
            // Hidden, then there again: the directory hides what is below it.
            .file(".wh.again", "")
            .file("again/x", "")
            .file("kept", "x")
            .file(".wh.kept", "")
            .file(".wh..wh.plnk/old", ""),
    )
    .expect("fine");
    let tree = room.tree();
    let hidden = fs::symlink_metadata(tree.join("gone/file")).expect("a whiteout");
    assert_eq!((hidden.rdev(), hidden.mode() & 0o170_000), (0, 0o020_000));
    let opaque = |name: &str| {
        xattr::get(tree.join(name), "user.overlay.opaque").expect("read").as_deref() == Some(b"y")
    };
    assert!(opaque("fresh") && opaque("again") && !opaque("gone"));
    assert_eq!(fs::read_to_string(tree.join("kept")).expect("the layer's own stays"), "x");
    assert!(!tree.join(".wh..wh.plnk").exists());

    let room = Room::new();
    let plain = Options { whiteouts: Whiteouts::None, ..options() };
    room.unpack_with(&Made::default().file(".wh.name", "a name"), &plain).expect("fine");
    assert!(room.tree().join(".wh.name").is_file());
}

#[test]
fn hard_links_into_lower_layers_copy_the_file_up() {
    let room = Room::new();
    let make = |name: &str| {
        let path = room.dir.path().join(name);
        fs::create_dir_all(path.join("d")).expect("made");
        path
    };
    let (top, bottom) = (make("top"), make("bottom"));
    fs::write(bottom.join("d/a"), "old").expect("written");
    fs::write(bottom.join("d/b"), "bottom").expect("written");
    fs::write(top.join("d/a"), "new").expect("written");
    let lowers = [top, bottom.clone()];
    let with = Options { lowers: &lowers, ..options() };
    let report = room
        .unpack_with(&Made::default().hard("x", "d/a").hard("y", "d/b"), &with)
        .expect("found below");
    assert!(report.adopted);
    let text = |name: &str| fs::read_to_string(room.tree().join(name)).expect(name);
    assert_eq!((text("x").as_str(), text("y").as_str()), ("new", "bottom"));
    assert_eq!(fs::metadata(room.tree().join("d/a")).expect("copied").nlink(), 2);
    assert_eq!(fs::metadata(bottom.join("d/b")).expect("there").nlink(), 1);

    // An opaque directory hides what is below it.
    xattr::set(lowers[0].join("d"), "user.overlay.opaque", b"y").expect("set");
    let room = Room::new();
    let refused = room.unpack_with(&Made::default().hard("y", "d/b"), &with);
    assert!(matches!(refused, Err(ImageError::Bad(_))), "{refused:?}");
}

#[test]
fn bombs_are_stopped_by_ratio_and_size() {
    let zeros = std::io::repeat(0).take(600 << 20);
    let mut packed = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
    std::io::copy(&mut { zeros }, &mut packed).expect("packed");
    let packed = packed.finish().expect("packed");
    assert!(packed.len() < 300_000, "{}", packed.len());
    let room = Room::new();
    let mut expanded = crate::stream::expand(&*packed, u64::MAX).expect("zstd").reader;
    let result = std::io::copy(&mut expanded, &mut std::io::sink());
    assert_eq!(result.expect_err("too good").kind(), std::io::ErrorKind::QuotaExceeded);

    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&vec![0; 10 << 20]).expect("packed");
    let gzip = gzip.finish().expect("packed");
    let expanded = crate::stream::expand(&*gzip, 1 << 20).expect("gzip").reader;
    let result = unpack(expanded, &room.tree(), &options());
    // Ten megabytes of zeros are an empty archive and a long tail, which counts.
    assert!(matches!(result, Err(ImageError::Limit(_))), "{result:?}");
}

#[test]
fn a_cut_archive_is_an_error_wherever_it_is_cut() {
    let whole = Made::default().file("a", &"x".repeat(700)).pax(&[("path", "b")]).file("c", "y").0;
    let edges = (0..whole.len()).step_by(512).flat_map(|edge| [edge + 1, edge + 511, edge + 512]);
    for end in edges.filter(|end| *end < whole.len()) {
        let room = Room::new();
        let result = unpack(&whole[..end], &room.tree(), &options());
        // Between two entries a cut looks like an end without its marker.
        let between = end == 512 * 3 || (result.is_ok() && end > whole.len() - 512);
        assert!(between || result.is_err(), "cut at {end}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn wild_bytes_never_panic_and_stay_inside(
        names in prop::collection::vec("[a-c./]{1,8}", 1..12),
        kinds in prop::collection::vec(0usize..6, 12),
        flips in prop::collection::vec((0usize..8192, any::<u8>()), 0..6),
    ) {
        let mut made = Made::default();
        for (name, kind) in names.iter().zip(kinds) {
            let other = &names[kind % names.len()];
            made = match kind {
                0 => made.file(name, "data"),
                1 => made.dir(name),
                2 => made.link(name, "../outside"),
                3 => made.hard(name, other),
                4 => made.file(&format!("{name}/.wh.x"), ""),
                _ => made.link(name, other),
            };
        }
        for (at, byte) in flips {
            if let Some(place) = made.0.get_mut(at) {
                *place ^= byte;
            }
        }
        let room = Room::new();
        // Whatever comes of it, `unpack` has looked that nothing outside changed.
        let _ = room.unpack(made);
    }
}
