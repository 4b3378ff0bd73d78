//! The front's loop: waits for readiness events and messages, and handles them.
//!
//! It carries out what `admission` decides. Nothing in it waits for a client or a worker.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use log::warn;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event as Readiness, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};

use super::admission::{Admission, Phase, Room, TooManyHeld};
use super::connection::{Close, Connection, Input, Next, READ, Written};
use super::counts::{Counts, Event, Report};
use super::head::{self, Refusal};
use super::inbox::{Id, Inbox, Last, Message};
use super::lane::Lane;
use super::listener;
use crate::http::answer::{self, Bytes};
use crate::logging::{self, Line};

/// Connections accepted in one turn of the loop, so that those which are open do not wait for long.
const ACCEPTED: usize = 64;
/// Events received from the kernel in one turn.
const EVENTS: usize = 256;
/// When to try again after the kernel had no descriptor or no memory for a connection.
const SHORTAGE: Duration = Duration::from_millis(20);

/// The sources of events besides connections, whose ids are far smaller.
const OF_LISTENER: u64 = u64::MAX;
const OF_INBOX: u64 = u64::MAX - 1;
const OF_LANE: u64 = u64::MAX - 2;

/// Why a front's loop ended.
pub(super) enum Ended {
    Listener(Errno),
    Lane(io::Error),
    LaneHungUp,
    Epoll(Errno),
}

impl fmt::Display for Ended {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listener(error) => write!(out, "accept failed: {error}"),
            Self::Lane(error) => write!(out, "cannot write to tiny_http: {error}"),
            Self::LaneHungUp => out.write_str("tiny_http has stopped reading"),
            Self::Epoll(error) => write!(out, "epoll failed: {error}"),
        }
    }
}

/// What the front's thread owns.
pub(super) struct Loop {
    epoll: OwnedFd,
    /// `None` once no more connections are accepted.
    listener: Option<TcpListener>,
    /// A connection may be waiting at the listener.
    waiting: bool,
    /// When to accept again, if not now.
    retry: Option<Instant>,
    /// While the program stops: how many more connections are accepted at most.
    left_to_accept: Option<usize>,
    inbox: Arc<Inbox>,
    lane: Lane,
    admission: Admission,
    /// By slot.
    connections: Vec<Option<Connection>>,
    /// That of the last connection.
    generation: u32,
    last_accepted: Option<Instant>,
    counts: Counts,
    scratch: [u8; READ],
}

impl Loop {
    pub(super) fn new(
        listener: TcpListener,
        lane: Lane,
        inbox: Arc<Inbox>,
        most: usize,
    ) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let edge = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &listener, EventData::new_u64(OF_LISTENER), edge)?;
        epoll::add(&epoll, &*inbox, EventData::new_u64(OF_INBOX), edge)?;
        // Nothing is read from it: only a hang-up, which is always reported.
        epoll::add(&epoll, &lane, EventData::new_u64(OF_LANE), EventFlags::ET)?;
        Ok(Self {
            epoll,
            listener: Some(listener),
            waiting: true,
            retry: None,
            left_to_accept: None,
            inbox,
            lane,
            admission: Admission::new(most),
            connections: Vec::new(),
            generation: 0,
            last_accepted: None,
            counts: Counts::default(),
            scratch: [0; READ],
        })
    }

    pub(super) fn run(mut self) -> Ended {
        let mut events = Vec::with_capacity(EVENTS);
        let mut messages = Vec::new();
        loop {
            if let Err(ended) = self.turn(&mut events, &mut messages) {
                return ended;
            }
        }
    }

    /// Waits until something happens, and handles it. `events` and `messages` are empty before and
    /// after.
    fn turn(
        &mut self,
        events: &mut Vec<Readiness>,
        messages: &mut Vec<Message>,
    ) -> Result<(), Ended> {
        self.inbox.collect(messages);
        let wait = if messages.is_empty() { self.wait() } else { Some(Timespec::default()) };
        let room = rustix::buffer::spare_capacity(events);
        match epoll::wait(&self.epoll, room, wait.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Ended::Epoll(error)),
        }
        let now = Instant::now();
        for message in messages.drain(..) {
            self.handle(message, now);
            self.lane.flush_if_long().map_err(Ended::Lane)?;
        }
        for Readiness { flags, data } in events.drain(..) {
            match data.u64() {
                OF_INBOX => {}
                OF_LISTENER => self.waiting = true,
                OF_LANE => return Err(Ended::LaneHungUp),
                number => self.on_ready(Id::from_number(number), flags, now),
            }
            self.lane.flush_if_long().map_err(Ended::Lane)?;
        }
        if self.waiting && self.retry.is_none_or(|at| at <= now) {
            self.accept(now)?;
        }
        self.expire(now);
        self.lane.flush().map_err(Ended::Lane)
    }

    /// How long there is nothing to do if nothing happens; `None` without limit.
    fn wait(&self) -> Option<Timespec> {
        let accept = if self.waiting { self.retry.or_else(|| Some(Instant::now())) } else { None };
        let next = [self.admission.deadline(), accept].into_iter().flatten().min()?;
        Timespec::try_from(next.saturating_duration_since(Instant::now())).ok()
    }

    // New connections.

    fn accept(&mut self, now: Instant) -> Result<(), Ended> {
        self.retry = None;
        for _ in 0..ACCEPTED {
            if self.left_to_accept == Some(0) {
                self.listener = None;
            }
            let Some(listener) = &self.listener else {
                self.waiting = false;
                return Ok(());
            };
            let room = self.admission.room(now);
            if let Room::WaitUntil(at) = room {
                self.retry = Some(at);
                return Ok(());
            }
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            match acceptfrom_with(listener, flags) {
                Ok((socket, peer)) => {
                    if let Room::Evict(slot) = room {
                        self.evict(slot);
                    }
                    self.left_to_accept = self.left_to_accept.map(|left| left.saturating_sub(1));
                    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                    self.open(socket.into(), peer, now);
                }
                Err(Errno::AGAIN) => {
                    self.waiting = false;
                    self.admission.none_waiting();
                    if self.left_to_accept.is_some() {
                        self.listener = None;
                    }
                    return Ok(());
                }
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error @ (Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::FAULT)) => {
                    return Err(Ended::Listener(error));
                }
                Err(error) => {
                    if logging::admits(Line::Shortage) {
                        warn!(error:%; "cannot accept a connection, retrying");
                    }
                    self.retry = Some(now + SHORTAGE);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn open(&mut self, stream: TcpStream, peer: Option<SocketAddr>, now: Instant) {
        self.counts.accepted += 1;
        self.last_accepted = Some(now);
        self.generation = self.generation.wrapping_add(1);
        let slot = self.admission.insert(now);
        // There is no client of another family than IP.
        let peer = peer.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
        let Some(id) = Id::new(slot, self.generation) else { return self.admission.remove(slot) };
        let connection = Connection::new(id, stream, peer);
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        if epoll::add(&self.epoll, &connection, EventData::new_u64(id.number()), flags).is_err() {
            self.counts.note(Event::Rejected, connection.peer());
            return self.admission.remove(slot);
        }
        if slot >= self.connections.len() {
            self.connections.resize_with(slot + 1, || None);
        }
        if let Some(place) = self.connections.get_mut(slot) {
            *place = Some(connection);
        }
        // Its request has mostly arrived already. A connection that has waited at the listener must not
        // wait again for its event, behind thousands of others.
        self.next_head(slot, now);
    }

    // Their requests and answers.

    fn connection(&mut self, slot: usize) -> Option<&mut Connection> {
        self.connections.get_mut(slot)?.as_mut()
    }

    /// `None` when it has been closed: its slot may have another one by now.
    fn find(&mut self, id: Id) -> Option<(usize, &mut Connection)> {
        let slot = id.slot();
        self.connection(slot).filter(|connection| connection.id == id).map(|found| (slot, found))
    }

    fn on_ready(&mut self, id: Id, flags: EventFlags, now: Instant) {
        let Some((slot, connection)) = self.find(id) else { return };
        connection.note(flags);
        match self.admission.phase(slot) {
            // Its request is in tiny_http's queue; the slot is vacant once that is answered.
            Some(Phase::Answering) => {}
            _ if flags.contains(EventFlags::ERR) => self.close(slot, Close::Deliver),
            Some(Phase::Idle | Phase::ReadingHead) => self.next_head(slot, now),
            Some(Phase::Writing) if flags.contains(EventFlags::OUT) => self.write_more(slot, now),
            Some(Phase::Closing | Phase::Refused) => self.drop_input(slot),
            Some(Phase::Writing) | None => {}
        }
    }

    fn next_head(&mut self, slot: usize, now: Instant) {
        let Self { connections, scratch, lane, admission, .. } = self;
        let Some(Some(connection)) = connections.get_mut(slot) else { return };
        let next = connection.next_head(scratch, &mut lane.heads);
        let held = admission.set_held(slot, connection.held());
        match (next, held) {
            (Next::Forwarded, _) => admission.set_phase(slot, Phase::Answering, now),
            (Next::End, _) => self.finish(slot, now),
            (Next::Gone, _) => self.close(slot, Close::Deliver),
            (Next::Refused(refusal), _) => self.refuse(slot, refusal, now),
            (Next::Partial, Err(TooManyHeld)) => self.refuse(slot, head::TOO_MUCH, now),
            (Next::Partial, Ok(())) if admission.phase(slot) == Some(Phase::Idle) => {
                admission.set_phase(slot, Phase::ReadingHead, now);
            }
            (Next::Partial | Next::Nothing, _) => {}
        }
    }

    fn handle(&mut self, message: Message, now: Instant) {
        match message {
            Message::Answer { to, bytes, last } => self.answer(to, bytes, last, now),
            Message::NoAnswer { to } => {
                if let Some((slot, _)) = self.find(to) {
                    self.shut_out(slot, Event::Unanswered);
                }
            }
            Message::StopAccepting => {
                // As many as the kernel may have queued.
                self.left_to_accept = Some(listener::BACKLOG);
                self.waiting = true;
            }
            Message::Report(sender) => {
                let report = Report {
                    is_quiet: self.admission.is_quiet(now)
                        && (self.left_to_accept.is_none() || self.listener.is_none()),
                    last_accepted: self.last_accepted,
                    counts: self.counts.clone(),
                };
                // The receiver may have given up.
                let _ = sender.send(report);
            }
        }
    }

    fn answer(&mut self, to: Id, bytes: Bytes, last: Last, now: Instant) {
        let slot = to.slot();
        if self.admission.phase(slot) != Some(Phase::Answering) {
            return;
        }
        let Some((_, connection)) = self.find(to) else { return };
        let length = bytes.length();
        let written = connection.write(bytes, last);
        self.admission.add_unread(slot, length);
        self.written(slot, &written, now);
        if self.admission.is_unread_over() {
            self.close_excess_unread();
        }
    }

    fn write_more(&mut self, slot: usize, now: Instant) {
        let Some(connection) = self.connection(slot) else { return };
        let written = connection.write_more();
        self.written(slot, &written, now);
    }

    fn written(&mut self, slot: usize, written: &Written, now: Instant) {
        match written {
            Written::Gone => self.close(slot, Close::Deliver),
            // It counts as progress each time that there is room.
            Written::Partly => self.admission.set_phase(slot, Phase::Writing, now),
            Written::Complete(Last::Yes) => self.finish(slot, now),
            Written::Complete(Last::No) => {
                self.admission.set_phase(slot, Phase::Idle, now);
                if self.connection(slot).is_some_and(|connection| connection.has_more()) {
                    self.next_head(slot, now);
                }
            }
        }
    }

    // How they end.

    fn expire(&mut self, now: Instant) {
        while let Some((slot, phase)) = self.admission.expired(now) {
            match phase {
                Phase::ReadingHead => self.refuse(slot, head::TOO_SLOW, now),
                Phase::Answering => self.shut_out(slot, Event::Unanswered),
                Phase::Writing => self.shut_out(slot, Event::Unread),
                Phase::Idle | Phase::Closing if !self.has_read_all(slot) => {
                    self.shut_out(slot, Event::Unread);
                }
                Phase::Refused => self.close(slot, Close::DiscardUnread),
                Phase::Idle | Phase::Closing => self.close(slot, Close::Deliver),
            }
        }
    }

    /// Answers without `tiny_http`, and lets the client read that before the connection is closed.
    fn refuse(&mut self, slot: usize, refusal: Refusal, now: Instant) {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        let method = if connection.is_head() { "HEAD" } else { "GET" };
        connection.refuse(&answer::refusal(method, refusal.status, SystemTime::now()));
        self.counts.note(Event::Refused(refusal), connection.peer());
        // Nothing is held now, which cannot be too much.
        let _ = self.admission.set_held(slot, 0);
        self.admission.set_phase(slot, Phase::Refused, now);
        self.drop_input(slot);
    }

    /// No request follows: the client sees the end, and the connection is closed when it has read
    /// everything.
    fn finish(&mut self, slot: usize, now: Instant) {
        let Some(connection) = self.connection(slot) else { return };
        connection.finish();
        let _ = self.admission.set_held(slot, 0);
        self.admission.set_phase(slot, Phase::Closing, now);
        self.drop_input(slot);
    }

    fn drop_input(&mut self, slot: usize) {
        let Self { connections, scratch, admission, .. } = self;
        let Some(Some(connection)) = connections.get_mut(slot) else { return };
        let is_refused = admission.phase(slot) == Some(Phase::Refused);
        match connection.drop_input(scratch) {
            Input::Gone => self.close(slot, Close::Deliver),
            Input::Over if is_refused => self.close(slot, Close::DiscardUnread),
            Input::Over if connection.has_read_all() => self.close(slot, Close::Deliver),
            Input::Over | Input::Open => {}
        }
    }

    fn has_read_all(&mut self, slot: usize) -> bool {
        self.connection(slot).is_none_or(|connection| connection.has_read_all())
    }

    fn evict(&mut self, slot: usize) {
        match self.admission.phase(slot) {
            // The refusal was counted.
            Some(Phase::Refused) => self.close(slot, Close::DiscardUnread),
            Some(Phase::Closing) if self.has_read_all(slot) => self.close(slot, Close::Deliver),
            _ => self.shut_out(slot, Event::Evicted),
        }
    }

    /// Frees the kernel's memory of what has been left unread longest.
    fn close_excess_unread(&mut self) {
        for slot in self.admission.unread_slots() {
            let unread = self.connection(slot).map_or(0, |connection| connection.unread());
            self.admission.set_unread(slot, unread);
        }
        for slot in self.admission.excess_unread() {
            self.shut_out(slot, Event::Unread);
        }
    }

    /// Closes a connection for a reason that is counted and logged.
    fn shut_out(&mut self, slot: usize, event: Event) {
        let Self { connections, counts, .. } = self;
        if let Some(Some(connection)) = connections.get(slot) {
            counts.note(event, connection.peer());
        }
        self.close(slot, Close::Discard);
    }

    fn close(&mut self, slot: usize, how: Close) {
        if let Some(connection) = self.connections.get_mut(slot).and_then(Option::take) {
            connection.close(how);
            self.admission.remove(slot);
            // There is room now.
            self.retry = None;
        }
    }
}
