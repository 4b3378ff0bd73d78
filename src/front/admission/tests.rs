use super::*;

const MS: Duration = Duration::from_millis(1);

/// `count` connections that were accepted at `now`, each with this many requests.
fn enter(admission: &mut Admission, count: usize, requests: u32, now: Instant) -> Vec<usize> {
    let slots: Vec<_> = (0..count).map(|_| admission.insert(now)).collect();
    for _ in 0..requests {
        for slot in &slots {
            admission.set_phase(*slot, Phase::Answering, now);
            admission.set_phase(*slot, Phase::Idle, now);
        }
    }
    slots
}

#[test]
fn random_lives_keep_every_promise() {
    let mut steps = 0;
    for seed in 1..=300_u64 {
        // xorshift, which is the same in every run.
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let random = std::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()[0]
        });
        steps += lives::live(random.take(3000));
    }
    assert!(steps > 100_000, "{steps}");
}

#[test]
fn the_longest_idle_goes_first_and_keep_alive_connections_last() {
    let now = Instant::now();
    let mut admission = Admission::new(4);
    let kept = enter(&mut admission, 1, 2, now);
    let new = enter(&mut admission, 2, 1, now + MS);
    let answering = enter(&mut admission, 1, 0, now + MS);
    admission.set_phase(answering[0], Phase::Answering, now + MS);
    // All are within their grace.
    assert_eq!(admission.room(now + 2 * MS), Room::WaitUntil(now + 51 * MS));
    for (slot, at) in [(new[0], 51), (new[1], 51), (kept[0], 120)] {
        assert_eq!(admission.room(now + at * MS), Room::Evict(slot));
        admission.remove(slot);
        let other = admission.insert(now + at * MS);
        admission.set_phase(other, Phase::Answering, now + at * MS);
    }
    // All are being answered: none is evicted, even when patience has run out.
    for later in [121, 200, 5000] {
        let later = now + later * MS;
        assert!(matches!(admission.room(later), Room::WaitUntil(at) if at > later));
    }
}

#[test]
fn a_keep_alive_connection_that_has_been_idle_for_long_counts_as_any_other() {
    let now = Instant::now();
    let mut admission = Admission::new(2);
    let kept = enter(&mut admission, 1, 9, now);
    let new = enter(&mut admission, 1, 1, now + 4900 * MS);
    assert_eq!(admission.room(now + 4999 * MS), Room::Evict(new[0]));
    assert_eq!(admission.room(now + 5000 * MS), Room::Evict(kept[0]));
}

#[test]
fn patience_ends_with_the_longest_idle_of_the_larger_kind() {
    let now = Instant::now();
    // Those that have left are no part of their kind.
    for (keep_alive, left, new, of_keep_alive) in
        [(3, 0, 1, true), (1, 0, 3, false), (2, 0, 2, false), (4, 2, 2, false)]
    {
        let mut admission = Admission::new(4);
        let mut kept = enter(&mut admission, keep_alive, 2, now);
        kept.drain(..left).for_each(|slot| admission.remove(slot));
        let new = enter(&mut admission, new, 1, now + 30 * MS);
        assert_eq!(admission.room(now + 15 * MS), Room::WaitUntil(now + 75 * MS));
        // By then, only the least grace is over.
        let first = if of_keep_alive { kept[0] } else { new[0] };
        assert_eq!(admission.room(now + 75 * MS), Room::Evict(first));
        admission.remove(first);
        admission.insert(now + 75 * MS);
        // A connection within the next second does not wait at all.
        assert!(matches!(admission.room(now + 76 * MS), Room::Evict(_)));
    }
}

#[test]
fn a_new_connection_has_time_to_send_a_request_even_without_patience() {
    let now = Instant::now();
    let mut admission = Admission::new(2);
    let silent = enter(&mut admission, 2, 0, now + MS);
    admission.impatient_until = Some(now + 900 * MS);
    assert_eq!(admission.room(now + 2 * MS), Room::WaitUntil(now + 16 * MS));
    // One that has sent a request is evicted first, even a recent one.
    admission.set_phase(silent[1], Phase::Answering, now + 9 * MS);
    admission.set_phase(silent[1], Phase::Idle, now + 9 * MS);
    assert_eq!(admission.room(now + 10 * MS), Room::Evict(silent[1]));
}

#[test]
fn the_longest_idle_of_those_that_do_not_read_are_closed_first() {
    let now = Instant::now();
    let mut admission = Admission::new(100);
    let slots = enter(&mut admission, 40, 1, now);
    for (number, slot) in (0..).zip(&slots) {
        // The last one comes first, though it is being answered again.
        admission.set_phase(*slot, Phase::Answering, now + MS * (40 - number));
        admission.add_unread(*slot, UNREAD_OF_ONE * 2);
        let phase = if number == 39 { Phase::Answering } else { Phase::Writing };
        admission.set_phase(*slot, phase, now + MS * (40 - number));
    }
    assert!(admission.is_unread_over() && admission.unread_slots().len() == 40);
    let mut expected: Vec<_> = slots.iter().copied().rev().collect();
    // 40 of 256 KiB each: 24 of them are 6 MiB.
    expected.truncate(16);
    assert_eq!(admission.excess_unread(), expected);
}

#[test]
fn small_heads_are_accepted_however_many_are_held() {
    let now = Instant::now();
    let mut admission = Admission::new(400);
    let slots = enter(&mut admission, 400, 0, now);
    let (last, others) = slots.split_last().unwrap();
    // 192 of 16 KiB are 3 MiB.
    for (number, slot) in others.iter().enumerate() {
        assert_eq!(admission.set_held(*slot, 16 << 10).is_ok(), number < 192);
    }
    assert!(admission.set_held(*last, 4096).is_ok());
    assert!(admission.set_held(*last, 4097).is_err());
    others.iter().for_each(|slot| admission.remove(*slot));
    assert!(admission.set_held(*last, 4097).is_ok());
    admission.remove(*last);
    assert_eq!(admission.bytes(), (0, 0));
}

#[test]
fn bytes_of_a_partial_head_do_not_count_as_activity() {
    let now = Instant::now();
    let mut admission = Admission::new(2);
    let dripping = admission.insert(now);
    admission.set_phase(dripping, Phase::ReadingHead, now + MS);
    let other = admission.insert(now + 2 * MS);
    for (at, held) in [(20, 10), (40, 20), (60, 30)] {
        assert!(admission.set_held(dripping, held).is_ok());
        assert_eq!(admission.phase(dripping), Some(Phase::ReadingHead));
        let room = admission.room(now + at * MS);
        assert_eq!(room == Room::Evict(dripping), at > 50, "{other}: {room:?}");
    }
    assert_eq!(admission.expired(now + 10_000 * MS), None);
    assert_eq!(admission.expired(now + 10_001 * MS), Some((dripping, Phase::ReadingHead)));
}

#[test]
fn the_program_may_end_once_no_request_is_under_way_or_on_its_way() {
    let now = Instant::now();
    let mut admission = Admission::new(4);
    assert!(admission.is_quiet(now));
    // The first request of a new connection may be on its way for half a second.
    let slot = admission.insert(now);
    assert!(!admission.is_quiet(now));
    assert!(!admission.is_quiet(now + 499 * MS));
    assert!(admission.is_quiet(now + 500 * MS));
    for (phase, is_quiet) in [
        (Phase::ReadingHead, false),
        (Phase::Answering, false),
        (Phase::Writing, false),
        (Phase::Idle, true),
        (Phase::Closing, true),
        (Phase::Refused, true),
    ] {
        admission.set_phase(slot, phase, now + 500 * MS);
        assert_eq!(admission.is_quiet(now + 501 * MS), is_quiet, "{phase:?}");
    }
}

#[test]
fn open_connections_are_counted_against_the_limit() {
    let now = Instant::now();
    let mut admission = Admission::new(7);
    let slots = enter(&mut admission, 3, 1, now);
    assert_eq!((admission.open(), admission.limit()), (3, 7));
    // One that is reported as closed twice was open once.
    admission.remove(slots[1]);
    admission.remove(slots[1]);
    assert_eq!((admission.open(), admission.limit()), (2, 7));
}

#[test]
fn what_is_unread_is_measured_above_8_mib() {
    let now = Instant::now();
    let mut admission = Admission::new(100);
    let slots = enter(&mut admission, 33, 1, now);
    let (last, others) = slots.split_last().unwrap();
    // 32 of 256 KiB are 8 MiB.
    others.iter().for_each(|slot| admission.add_unread(*slot, UNREAD_OF_ONE));
    assert!(!admission.is_unread_over());
    admission.add_unread(*last, 1);
    assert!(admission.is_unread_over());
    assert_eq!(admission.unread_slots(), slots);
    // They have read it, but for 7 MiB: none has to go.
    others.iter().for_each(|slot| admission.set_unread(*slot, (7 << 20) / 32));
    admission.set_unread(*last, 0);
    assert_eq!(admission.bytes(), (0, 7 << 20));
    assert!(admission.excess_unread().is_empty());
}

#[test]
fn patience_begins_anew_with_the_next_connection_once_none_waits() {
    let now = Instant::now();
    let mut admission = Admission::new(1);
    let kept = enter(&mut admission, 1, 2, now);
    assert_eq!(admission.room(now + 10 * MS), Room::WaitUntil(now + 70 * MS));
    // The one that waited has gone away; another one comes.
    admission.none_waiting();
    assert_eq!(admission.room(now + 80 * MS), Room::WaitUntil(now + 120 * MS));
    assert_eq!(admission.room(now + 120 * MS), Room::Evict(kept[0]));
}
