use proptest::prelude::*;

use super::*;

fn cron(text: &str) -> Cron {
    text.parse().unwrap()
}

fn zone(name: &str) -> TimeZone {
    time_zone(name).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn the_next_time_is_that_of_the_zone() {
    let berlin = zone("Europe/Berlin");
    for (line, after, next) in [
        // Monday the 23rd of November 2026.
        (
            "0 20 * * 1-5",
            "2026-11-23T18:59:59Z",
            "2026-11-23T19:00:00Z",
        ),
        (
            "0 20 * * 1-5",
            "2026-11-23T19:00:00Z",
            "2026-11-24T19:00:00Z",
        ),
        (
            "0 20 * * mon-FRI",
            "2026-11-27T19:00:00Z",
            "2026-11-30T19:00:00Z",
        ),
        (
            "*/15 * * * *",
            "2026-11-23T18:50:00Z",
            "2026-11-23T19:00:00Z",
        ),
        (
            "5/20 3 * * *",
            "2026-11-23T02:05:00Z",
            "2026-11-23T02:25:00Z",
        ),
        ("@daily", "2026-11-23T18:00:00Z", "2026-11-23T23:00:00Z"),
        ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-28T23:00:00Z"),
        // Both kinds of day: either.
        ("0 0 1 * 0", "2026-11-23T00:00:00Z", "2026-11-28T23:00:00Z"),
        // A step over all days limits them.
        (
            "0 0 */10 * 0",
            "2026-11-23T00:00:00Z",
            "2026-11-28T23:00:00Z",
        ),
        (
            "0 0 */1 * 0",
            "2026-11-23T00:00:00Z",
            "2026-11-28T23:00:00Z",
        ),
        (
            "0 0 1 * */2",
            "2026-11-23T00:00:00Z",
            "2026-11-23T23:00:00Z",
        ),
        (
            "0 0 1,* * 0",
            "2026-11-23T00:00:00Z",
            "2026-11-28T23:00:00Z",
        ),
        // Sunday is 7 too.
        ("0 0 * * 7", "2026-11-23T00:00:00Z", "2026-11-28T23:00:00Z"),
        (
            "0 0 1,15 jan *",
            "2026-01-02T00:00:00Z",
            "2026-01-14T23:00:00Z",
        ),
    ] {
        assert_eq!(
            cron(line).next(&berlin, at(after)),
            Some(at(next)),
            "{line} after {after}"
        );
    }
}

#[test]
fn a_time_that_the_clock_passes_over_comes_and_one_that_it_shows_twice_comes_once() {
    let berlin = zone("Europe/Berlin");
    let nightly = cron("30 2 * * *");
    // From 02:00 to 03:00 on the 29th of March.
    let spring = nightly.next(&berlin, at("2026-03-28T12:00:00Z"));
    assert_eq!(
        spring,
        Some(at("2026-03-29T01:30:00Z")),
        "03:30, as far behind the jump"
    );
    assert_eq!(
        nightly.last(
            &berlin,
            at("2026-03-28T12:00:00Z"),
            at("2026-03-29T12:00:00Z")
        ),
        spring
    );
    // From 03:00 to 02:00 on the 25th of October.
    let first = nightly.next(&berlin, at("2026-10-24T12:00:00Z")).unwrap();
    assert_eq!(first, at("2026-10-25T00:30:00Z"));
    assert_eq!(
        nightly.next(&berlin, first),
        Some(at("2026-10-26T01:30:00Z"))
    );
}

#[test]
fn what_is_no_cron_line_is_refused() {
    let refused = |text: &str| text.parse::<Cron>().unwrap_err();
    assert_eq!(refused("0 20 * *"), InvalidCron::Fields(4));
    assert_eq!(refused("0 0 20 * * *"), InvalidCron::Fields(6));
    assert_eq!(refused("TZ=UTC 0 20 * * *"), InvalidCron::Zone);
    assert_eq!(refused("0 0 30 2 *"), InvalidCron::Never);
    for text in [
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * * 8",
        "+1 * * * *",
        "5-1 * * * *",
        "*/0 * * * *",
        "a * * * *",
        "1, * * * *",
        "1--2 * * * *",
        "* * * jan-xxx *",
        "@every 1h",
    ] {
        assert!(text.parse::<Cron>().is_err(), "{text}");
    }
}

/// A line of few times, so that days are skipped too.
fn line() -> impl Strategy<Value = Cron> {
    let part = |high: u8| prop_oneof![Just("*".to_owned()), (0..=high).prop_map(|n| n.to_string())];
    let day = prop_oneof![Just("*".to_owned()), (1..=28u8).prop_map(|n| n.to_string())];
    (0..60u8, part(23), day, part(6)).prop_map(|(minute, hour, day, weekday)| {
        cron(&format!("{minute} {hour} {day} * {weekday}"))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every hour of some weeks around both changes of the clock.
    #[test]
    fn the_last_time_is_the_one_before_the_next(line in line(), from in 1_773_000_000i64..1_795_000_000, hours in 1i64..900,
        name in prop_oneof![Just("UTC"), Just("Europe/Berlin"), Just("America/New_York"), Just("Australia/Lord_Howe")]) {
        let zone = zone(name);
        let from = Timestamp::from_second(from).unwrap();
        let until = Timestamp::from_second(from.as_second() + hours * 3600).unwrap();
        let (mut last, mut after) = (None, from);
        while let Some(next) = line.next(&zone, after) {
            prop_assert!(next > after);
            if next > until {
                break;
            }
            (last, after) = (Some(next), next);
        }
        prop_assert_eq!(line.last(&zone, from, until), last);
    }
}
