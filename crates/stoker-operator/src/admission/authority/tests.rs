use super::*;

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_795_219_200).unwrap()
}

fn names() -> Names {
    Names {
        dns: vec!["hook.stoker-system.svc".to_owned()],
        ips: Vec::new(),
    }
}

fn secret(kept: &Kept) -> Secret {
    let entries = kept.entries().into_iter();
    let data = entries.filter_map(|(name, bytes)| Some((name.to_owned(), bytes?)));
    Secret {
        data: Some(data.collect()),
        ..Secret::default()
    }
}

fn look(kept: &Kept, trusted: bool, now: OffsetDateTime) -> Decided {
    next(Kept::read(&secret(kept)), &names(), trusted, now).unwrap()
}

/// Whether what API servers trust has signed what is shown.
fn is_trusted(bundle: &str, kept: &Kept) -> bool {
    bundle.contains(kept.authority.certificate())
}

#[test]
fn made_once_and_then_left_alone() {
    let first = next(None, &names(), false, now()).unwrap();
    assert!(first.done.is_some());
    let again = look(&first.kept, true, now() + Duration::days(1));
    assert_eq!(again.done, None);
    assert_eq!(again.kept.entries(), first.kept.entries());
    assert!(again.look_again > now() + Duration::days(50));
}

#[test]
fn a_leaf_is_renewed_in_time_by_the_same_authority() {
    let first = next(None, &names(), false, now()).unwrap();
    let later = look(&first.kept, true, first.look_again);
    assert_eq!(later.done, Some("certificate issued"));
    assert_eq!(later.kept.bundle(), first.kept.bundle());
    assert!(not_after(&later.kept.serving.certificate).unwrap() > now() + LEAF_LIFETIME);
}

#[test]
fn another_name_gives_another_leaf() {
    let first = next(None, &names(), false, now()).unwrap();
    let mut other = names();
    other.ips = vec!["127.0.0.1".parse().unwrap()];
    let read = Kept::read(&secret(&first.kept));
    let moved = next(read, &other, true, now()).unwrap();
    assert_eq!(moved.done, Some("certificate issued"));
}

#[test]
fn an_authority_is_trusted_before_it_signs_and_as_long_as_its_leaves_may_be_shown() {
    let first = next(None, &names(), false, now()).unwrap();
    let due = first.kept.authority.not_after() - AUTHORITY_LIFETIME / 3;
    let waiting = look(&first.kept, true, due);
    let before = waiting.kept.bundle();
    assert!(waiting.kept.waits());
    assert!(
        is_trusted(&before, &first.kept),
        "the one that signs stays trusted"
    );
    assert_eq!(
        waiting.kept.authority.certificate(),
        first.kept.authority.certificate()
    );

    let patient = look(&waiting.kept, false, due + Duration::minutes(1));
    assert_eq!(
        patient.done, None,
        "it signs only once it is trusted everywhere"
    );

    let turned = look(&waiting.kept, true, due + Duration::minutes(1));
    assert!(!turned.kept.waits());
    assert!(
        is_trusted(&before, &turned.kept),
        "trusted before it signed"
    );
    assert!(
        is_trusted(&turned.kept.bundle(), &waiting.kept),
        "the old leaf may be shown still"
    );
    assert_eq!(turned.kept.entries()[NEXT[1]], None);

    let over = first.kept.authority.not_after() + Duration::days(1);
    let settled = look(&turned.kept, true, over);
    assert_eq!(settled.kept.bundle(), turned.kept.authority.certificate());
}

#[test]
fn what_is_damaged_or_over_is_made_anew() {
    let first = next(None, &names(), false, now()).unwrap();
    let mut damaged = secret(&first.kept);
    let data = damaged.data.as_mut().unwrap();
    data.insert(AUTHORITY[1].to_owned(), ByteString(b"garbage".to_vec()));
    assert!(Kept::read(&damaged).is_none());
    let over = first.kept.authority.not_after() + Duration::days(1);
    let anew = look(&first.kept, true, over);
    assert_ne!(anew.kept.bundle(), first.kept.bundle());
}
