use super::*;
use crate::http::representation::Representation;

const S: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// One minute fresh, five minutes served, confirmed after a second, four workers.
fn empty(now: Instant) -> State {
    let lifetimes = Lifetimes { cache_ttl: 60 * S, max_stale: 300 * S, revalidate: Some(S) };
    State::new(lifetimes, 4, Paths::default(), now)
}

/// The ticket, or what a request gets that cannot wait.
fn ask(state: &mut State, now: Instant) -> Result<Ticket, Result<FoundCopy, Unavailable>> {
    match state.ask(Kind::Jwks, now).waiting {
        Waiting::For(ticket) => Ok(ticket),
        Waiting::Vain(outcome) => Err(outcome),
    }
}

fn store(state: &mut State, kind: Kind, now: Instant) {
    let representation = Representation::new(kind, b"{}".to_vec());
    let confirmed = Confirmed { at: now, max_age: None };
    let (snapshot, _) = state.snapshot().with(kind, representation, confirmed, None);
    state.store(kind, snapshot);
}

/// As the refresher does in a complete round that began at `now` and took no time.
fn round(state: &mut State, now: Instant) {
    state.begin_round(now);
    for kind in [Kind::Discovery, Kind::Jwks] {
        store(state, kind, now);
    }
    state.end_round(now, now + 45 * S);
}

#[test]
fn a_copy_is_fresh_then_stale_then_not_served() {
    let now = Instant::now();
    let mut state = empty(now);
    assert!(state.snapshot().copy(Kind::Jwks, now).is_none());
    round(&mut state, now);
    for (age, expected) in
        [(0, Some(false)), (60, Some(false)), (61, Some(true)), (300, Some(true)), (301, None)]
    {
        let copy = state.snapshot().copy(Kind::Jwks, now + age * S);
        assert_eq!(copy.map(|copy| copy.is_stale), expected, "{age}");
    }
    let too_old = Unavailable { reason: Reason::TooOld, retry_after: Duration::ZERO };
    let asked = state.ask(Kind::Discovery, now + 301 * S);
    let Waiting::Vain(outcome) = asked.waiting else { panic!("it waits") };
    assert_eq!(outcome.err(), Some(too_old));
    assert_eq!(state.ready(now + 301 * S), Err(Reason::TooOld));
}

#[test]
fn all_workers_but_one_wait_for_the_round_that_has_begun_and_for_no_other() {
    let now = Instant::now();
    let mut state = empty(now);
    let tickets: Vec<_> = (0..3).map(|_| ask(&mut state, now).ok().unwrap()).collect();
    let outcome = ask(&mut state, now).err().unwrap();
    assert_eq!(outcome.err().map(|it| it.reason), Some(Reason::NotFetchedYet));
    assert!(state.must_wait(&tickets[0], Kind::Jwks, now));
    assert_eq!(tickets[0].patience(now), None, "until it has ended");

    state.fail(Kind::Discovery, Reason::Timeout);
    state.fail(Kind::Jwks, Reason::Timeout);
    state.end_round(now + 5 * S, now + 7 * S);
    state.begin_round(now + 7 * S);
    for ticket in tickets {
        assert!(!state.must_wait(&ticket, Kind::Jwks, now + 6 * S));
        let timeout = Unavailable { reason: Reason::Timeout, retry_after: S };
        assert_eq!(state.end_waiting(ticket, Kind::Jwks, now + 6 * S).err(), Some(timeout));
    }
    // Between two rounds no request for the discovery document waits.
    state.end_round(now + 7 * S, now + 9 * S);
    assert!(matches!(state.ask(Kind::Discovery, now + 8 * S).waiting, Waiting::Vain(_)));
}

#[test]
fn a_request_that_waited_gets_the_copy_as_soon_as_it_is_stored_and_as_a_miss() {
    let now = Instant::now();
    let mut state = empty(now);
    let ticket = ask(&mut state, now).ok().unwrap();
    store(&mut state, Kind::Jwks, now);
    assert!(state.must_wait(&ticket, Kind::Discovery, now));
    assert!(!state.must_wait(&ticket, Kind::Jwks, now));
    let copy = state.end_waiting(ticket, Kind::Jwks, now).unwrap();
    assert!(!copy.is_hit && state.snapshot().copy(Kind::Jwks, now).unwrap().is_hit);
}

#[test]
fn a_key_set_older_than_revalidate_is_confirmed_once_for_all_who_ask() {
    let now = Instant::now();
    let mut state = empty(now);
    round(&mut state, now);
    let suffices = |state: &State, kind, now| {
        state.snapshot().suffices(kind, &state.snapshot().copy(kind, now).unwrap())
    };
    assert!(suffices(&state, Kind::Jwks, now + S));
    let now = now + S + MS;
    assert!(!suffices(&state, Kind::Jwks, now) && suffices(&state, Kind::Discovery, now));

    let asked: Vec<_> = (0..5).map(|_| state.ask(Kind::Jwks, now)).collect();
    let requests: Vec<_> = asked.iter().map(|asked| asked.requests_round).collect();
    assert_eq!(requests, [true, false, false, false, false]);
    let waiting = asked.iter().filter(|it| matches!(it.waiting, Waiting::For(_))).count();
    assert_eq!(waiting, 3, "all workers but one");

    assert_eq!(state.begin_round(now + MS), Round::Keys);
    let Waiting::For(ticket) = &asked[0].waiting else { panic!("it does not wait") };
    assert_eq!(ticket.patience(now + 50 * MS), Some(150 * MS));
    assert!(state.must_wait(ticket, Kind::Jwks, now + 2 * MS));
    store(&mut state, Kind::Jwks, now + MS);
    assert!(!state.must_wait(ticket, Kind::Jwks, now + 2 * MS));
    state.end_keys_round(now + 3 * MS, None);
    // The next complete round is due when it was.
    assert_eq!(state.until_next_round(now), 44 * S - MS);
}

#[test]
fn requests_cause_one_round_in_revalidate_seconds_whatever_comes_of_it() {
    let start = Instant::now();
    let mut state = empty(start);
    round(&mut state, start);
    for (ms, requests_round) in
        [(1001, true), (1500, false), (2000, false), (2001, true), (2500, false), (3001, true)]
    {
        let now = start + ms * MS;
        assert_eq!(state.ask(Kind::Jwks, now).requests_round, requests_round, "{ms}");
        if requests_round {
            state.begin_round(now);
            state.fail(Kind::Jwks, Reason::Unreachable);
            state.end_keys_round(now + MS, None);
        }
    }
}

#[test]
fn nobody_waits_after_a_slow_round_until_a_fast_one() {
    let start = Instant::now();
    let mut state = empty(start);
    round(&mut state, start);
    // `Some(true)`: it asks for a round, and waits.
    for (ms, took, waits) in
        [(2000, 201, true), (4000, 201, false), (6000, 1, false), (8000, 1, true)]
    {
        let now = start + ms * MS;
        let asked = state.ask(Kind::Jwks, now);
        assert!(asked.requests_round);
        assert_eq!(matches!(asked.waiting, Waiting::For(_)), waits, "{ms}");
        state.begin_round(now);
        // One that comes when a round has lasted too long does not wait for it either.
        assert!(ask(&mut state, now + 200 * MS).is_err());
        if let Waiting::For(ticket) = asked.waiting {
            assert!(state.end_waiting(ticket, Kind::Jwks, now + 200 * MS).is_ok());
        }
        state.end_keys_round(now + took * MS, None);
    }
}

#[test]
fn without_a_copy_a_request_asks_for_a_round_and_waits_no_longer_than_with_one() {
    let start = Instant::now();
    let mut state = empty(start);
    state.fail(Kind::Jwks, Reason::Unreachable);
    state.end_round(start, start + 60 * S);
    assert!(ask(&mut state, start + 999 * MS).is_err());
    let asked = state.ask(Kind::Jwks, start + S);
    let Waiting::For(ticket) = asked.waiting else { panic!("it does not wait") };
    assert!(asked.requests_round);
    assert_eq!(ticket.patience(start + S), Some(200 * MS));
}

#[test]
fn revalidate_can_be_off() {
    let now = Instant::now();
    let lifetimes = Lifetimes { cache_ttl: 60 * S, max_stale: 300 * S, revalidate: None };
    let mut state = State::new(lifetimes, 4, Paths::default(), now);
    round(&mut state, now);
    let copy = state.snapshot().copy(Kind::Jwks, now + 59 * S).unwrap();
    assert!(state.snapshot().suffices(Kind::Jwks, &copy));
    assert!(!state.ask(Kind::Jwks, now + 301 * S).requests_round);
}

#[test]
fn the_same_bytes_again_are_no_change_and_one_representation() {
    let now = Instant::now();
    let mut state = empty(now);
    round(&mut state, now);
    let before = state.snapshot();
    let max_age = Some(7 * S);
    for (body, expected) in [(&b"{}"[..], false), (b"{ }", true)] {
        let representation = Representation::new(Kind::Jwks, body.to_vec());
        let confirmed = Confirmed { at: now + S, max_age };
        let (after, is_changed) = before.with(Kind::Jwks, representation, confirmed, None);
        assert_eq!(is_changed, expected);
        assert_eq!(after.copy(Kind::Jwks, now + S).unwrap().max_age, max_age);
        let [before, after] = [&before, &after].map(|it| it.held(Kind::Jwks).unwrap());
        let is_shared = Arc::ptr_eq(&before.representation, &after.representation);
        assert_eq!((is_shared, after.confirmed.at), (!expected, now + S));
    }
}

#[test]
fn health_is_that_of_the_last_round_and_an_old_one_requests_another() {
    let now = Instant::now();
    let mut state = empty(now);
    let unknown = Health { state: Err(Reason::NotFetchedYet), requests_round: false };
    assert_eq!(state.health(now + 99 * S), unknown, "the first round has begun");
    round(&mut state, now);
    // A round for the key set alone says nothing of the other document.
    assert!(state.ask(Kind::Jwks, now + 4 * S).requests_round);
    state.begin_round(now + 4 * S);
    state.end_keys_round(now + 4 * S, None);
    for (seconds, requests_round) in [(5, false), (6, true), (6, false)] {
        let health = Health { state: Ok(()), requests_round };
        assert_eq!(state.health(now + seconds * S), health);
    }
    assert!(state.is_requested());
    assert_eq!(state.begin_round(now + 6 * S), Round::Complete);
    assert!(!state.is_requested());
    state.fail(Kind::Jwks, Reason::Forbidden);
    state.end_round(now + 7 * S, now + 8 * S);
    assert_eq!(state.health(now + 8 * S).state, Err(Reason::Forbidden));
    // A copy is held all the same.
    assert_eq!(state.ready(now + 8 * S), Ok(()));
}

#[test]
fn a_complaint_makes_unhealthy_and_not_unready_and_failures_come_first() {
    let now = Instant::now();
    let mut state = empty(now);
    let observed = |issuer_mismatch| Arc::new(Observed { issuer_mismatch, ..Observed::default() });
    state.set_observed(observed(true));
    assert_eq!(state.health(now).state, Err(Reason::NotFetchedYet));
    round(&mut state, now);
    assert_eq!(state.health(now).state, Err(Reason::IssuerMismatch));
    assert_eq!((state.ready(now), state.missing(Kind::Jwks, now)), (Ok(()), None));
    state.fail(Kind::Jwks, Reason::Timeout);
    assert_eq!(state.health(now).state, Err(Reason::Timeout));
    state.set_observed(observed(false));
    assert_eq!(state.health(now).state, Err(Reason::Timeout));
}

#[test]
fn a_copy_is_too_old_from_the_moment_in_which_it_is_not_served() {
    let now = Instant::now();
    let mut state = empty(now);
    assert_eq!(state.snapshot().too_old_for(Kind::Jwks, now), None);
    assert_eq!(state.missing(Kind::Jwks, now), Some(Reason::NotFetchedYet));
    round(&mut state, now);
    let (end, later) = (now + 300 * S, now + 301 * S);
    assert_eq!(state.missing(Kind::Jwks, end), None);
    assert_eq!(state.missing(Kind::Jwks, later), Some(Reason::TooOld));
    assert_eq!(state.snapshot().too_old_for(Kind::Jwks, later), Some(S));
}
