use super::limits::{quota, shares};

#[test]
fn units_of_the_kernel() {
    assert_eq!(quota(1500), 150_000);
    assert_eq!(quota(10), 1000);
    assert_eq!(quota(1_024_000), 102_400_000);
    assert_eq!(shares(100), 1024);
    assert_eq!(shares(1), 10);
    assert_eq!(shares(10_000), 102_400);
}
