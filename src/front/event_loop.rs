//! The front's loop: waits for readiness events and for messages, and does what follows from them.
//!
//! It carries out what `admission.rs` decides. Nothing in it waits for a client or a worker.

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

use super::Report;
use super::admission::{Admission, Phase, Room, TooManyHeld};
use super::connection::{Connection, Input, Next, READ, Written};
use super::counts::{Counts, Event};
use super::head::{self, Refusal};
use super::inbox::{Id, Inbox, Last, Message};
use super::lane::Lane;
use super::listener;
use crate::http::reply::{self, Bytes};
use crate::logging::{self, Line};

/// Connections that are accepted in one round of the loop, so that those there are wait little.
const ACCEPTED: usize = 64;
/// Events that are taken from the kernel in one round.
const EVENTS: usize = 256;
/// How long to wait when the kernel has no descriptor or no memory for a connection.
const SHORTAGE: Duration = Duration::from_millis(20);

/// What events are of, beside connections, whose ids are far below.
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
    /// None once no more are accepted.
    listener: Option<TcpListener>,
    /// A connection may wait at the listener.
    waiting: bool,
    /// When to try again, where trying now would be in vain.
    retry: Option<Instant>,
    /// How many more are accepted at most, where the program is about to end.
    last_ones: Option<usize>,
    inbox: Arc<Inbox>,
    lane: Lane,
    admission: Admission,
    /// By slot.
    connections: Vec<Option<Connection>>,
    /// Of the last connection.
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
            last_ones: None,
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
            if let Err(ended) = self.round(&mut events, &mut messages) {
                return ended;
            }
        }
    }

    /// Waits until something happens, and does what follows from it. `events` and `messages` are
    /// empty before and after.
    fn round(
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
            self.obey(message, now);
            self.lane.flush_if_long().map_err(Ended::Lane)?;
        }
        for Readiness { flags, data } in events.drain(..) {
            match data.u64() {
                OF_INBOX => {}
                OF_LISTENER => self.waiting = true,
                OF_LANE => return Err(Ended::LaneHungUp),
                number => self.ready(Id::from_number(number), flags, now),
            }
            self.lane.flush_if_long().map_err(Ended::Lane)?;
        }
        if self.waiting && self.retry.is_none_or(|at| at <= now) {
            self.accept(now)?;
        }
        self.expire(now);
        self.lane.flush().map_err(Ended::Lane)
    }

    /// How long nothing has to be done if nothing happens.
    fn wait(&self) -> Option<Timespec> {
        let accept = if self.waiting { self.retry.or_else(|| Some(Instant::now())) } else { None };
        let next = [self.admission.deadline(), accept].into_iter().flatten().min()?;
        Timespec::try_from(next.saturating_duration_since(Instant::now())).ok()
    }

    // Connections that come.

    fn accept(&mut self, now: Instant) -> Result<(), Ended> {
        self.retry = None;
        for _ in 0..ACCEPTED {
            if self.last_ones == Some(0) {
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
                    self.last_ones = self.last_ones.map(|left| left.saturating_sub(1));
                    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                    self.enter(socket.into(), peer, now);
                }
                Err(Errno::AGAIN) => {
                    self.waiting = false;
                    self.admission.none_waits();
                    if self.last_ones.is_some() {
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
                        warn!(error:%; "cannot accept a connection, trying on");
                    }
                    self.retry = Some(now + SHORTAGE);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn enter(&mut self, stream: TcpStream, peer: Option<SocketAddr>, now: Instant) {
        self.counts.accepted += 1;
        self.last_accepted = Some(now);
        self.generation = self.generation.wrapping_add(1);
        let slot = self.admission.enter(now);
        // Only a client of another family than IP has no such address, and there is none.
        let peer = peer.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
        let Some(id) = Id::new(slot, self.generation) else { return self.admission.leave(slot) };
        let connection = Connection::new(id, stream, peer);
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        if epoll::add(&self.epoll, &connection, EventData::new_u64(id.number()), flags).is_err() {
            self.counts.note(Event::Rejected, connection.peer());
            return self.admission.leave(slot);
        }
        if slot >= self.connections.len() {
            self.connections.resize_with(slot + 1, || None);
        }
        if let Some(place) = self.connections.get_mut(slot) {
            *place = Some(connection);
        }
        // Mostly its request is there already. One that waited at the listener is not to wait once
        // more for its event, behind those of thousands, while others are accepted in its place.
        self.next_head(slot, now);
    }

    // What happens to them.

    fn connection(&mut self, slot: usize) -> Option<&mut Connection> {
        self.connections.get_mut(slot)?.as_mut()
    }

    /// None when it has been closed: its slot may be another's by now.
    fn find(&mut self, id: Id) -> Option<(usize, &mut Connection)> {
        let slot = id.slot();
        self.connection(slot).filter(|connection| connection.id == id).map(|found| (slot, found))
    }

    fn ready(&mut self, id: Id, flags: EventFlags, now: Instant) {
        let Some((slot, connection)) = self.find(id) else { return };
        connection.note(flags);
        match self.admission.phase(slot) {
            // Its request is in tiny_http's queue: the place is free when that has been answered.
            Some(Phase::Answering) => {}
            _ if flags.contains(EventFlags::ERR) => self.close(slot),
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
        let held = admission.hold(slot, connection.held());
        match (next, held) {
            (Next::HandedOn, _) => admission.set(slot, Phase::Answering, now),
            (Next::End, _) => self.finish(slot, now),
            (Next::Gone, _) => self.close(slot),
            (Next::Refused(refusal), _) => self.refuse(slot, refusal, now),
            (Next::Partial, Err(TooManyHeld)) => self.refuse(slot, head::TOO_MUCH, now),
            (Next::Partial, Ok(())) if admission.phase(slot) == Some(Phase::Idle) => {
                admission.set(slot, Phase::ReadingHead, now);
            }
            (Next::Partial | Next::Nothing, _) => {}
        }
    }

    fn obey(&mut self, message: Message, now: Instant) {
        match message {
            Message::Answer { to, bytes, last } => self.answer(to, bytes, last, now),
            Message::NoAnswer { to } => {
                if let Some((slot, _)) = self.find(to) {
                    self.shut_out(slot, Event::Unanswered);
                }
            }
            Message::StopAccepting => {
                // As many as the kernel may hold for us.
                self.last_ones = Some(listener::BACKLOG);
                self.waiting = true;
            }
            Message::Report(sender) => {
                let report = Report {
                    is_quiet: self.admission.is_quiet(now)
                        && (self.last_ones.is_none() || self.listener.is_none()),
                    last_accepted: self.last_accepted,
                    counts: self.counts.clone(),
                };
                // Whoever asked may have given up.
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
        self.admission.owe(slot, length);
        self.written(slot, &written, now);
        if self.admission.is_unread_over() {
            self.close_most_unread();
        }
    }

    fn write_more(&mut self, slot: usize, now: Instant) {
        let Some(connection) = self.connection(slot) else { return };
        let written = connection.write_more();
        self.written(slot, &written, now);
    }

    fn written(&mut self, slot: usize, written: &Written, now: Instant) {
        match written {
            Written::Gone => self.close(slot),
            // Each time that there was room is progress.
            Written::Partly => self.admission.set(slot, Phase::Writing, now),
            Written::Whole(Last::Yes) => self.finish(slot, now),
            Written::Whole(Last::No) => {
                self.admission.set(slot, Phase::Idle, now);
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
                Phase::Refused => self.close_refused(slot),
                Phase::Idle | Phase::Closing => self.close(slot),
            }
        }
    }

    /// Answers in `tiny_http`'s place, and lets the client read it before it is closed.
    fn refuse(&mut self, slot: usize, refusal: Refusal, now: Instant) {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        let method = if connection.is_of_head() { "HEAD" } else { "GET" };
        connection.refuse(&reply::refusal(method, refusal.status, SystemTime::now()));
        self.counts.note(Event::Refused(refusal), connection.peer());
        // Nothing is held any more, which cannot be too much.
        let _ = self.admission.hold(slot, 0);
        self.admission.set(slot, Phase::Refused, now);
        self.drop_input(slot);
    }

    /// No request follows: the client sees the end, and is closed when it has read everything.
    fn finish(&mut self, slot: usize, now: Instant) {
        let Some(connection) = self.connection(slot) else { return };
        connection.finish();
        let _ = self.admission.hold(slot, 0);
        self.admission.set(slot, Phase::Closing, now);
        self.drop_input(slot);
    }

    fn drop_input(&mut self, slot: usize) {
        let Self { connections, scratch, admission, .. } = self;
        let Some(Some(connection)) = connections.get_mut(slot) else { return };
        let is_refused = admission.phase(slot) == Some(Phase::Refused);
        match connection.drop_input(scratch) {
            Input::Gone => self.close(slot),
            Input::Over if is_refused => self.close_refused(slot),
            Input::Over if connection.has_read_all() => self.close(slot),
            Input::Over | Input::Open => {}
        }
    }

    /// What it has not read by now is thrown away: the kernel would keep it for nobody.
    fn close_refused(&mut self, slot: usize) {
        if !self.has_read_all(slot)
            && let Some(refused) = self.connection(slot)
        {
            refused.reset_on_close();
        }
        self.close(slot);
    }

    fn has_read_all(&mut self, slot: usize) -> bool {
        self.connection(slot).is_none_or(|connection| connection.has_read_all())
    }

    fn evict(&mut self, slot: usize) {
        match self.admission.phase(slot) {
            // It was counted then.
            Some(Phase::Refused) => self.close_refused(slot),
            Some(Phase::Closing) if self.has_read_all(slot) => self.close(slot),
            _ => self.shut_out(slot, Event::Evicted),
        }
    }

    /// Frees the kernel's memory from the clients that have left their answers unread longest.
    fn close_most_unread(&mut self) {
        for slot in self.admission.owing() {
            let unread = self.connection(slot).map_or(0, |connection| connection.unread());
            self.admission.measured(slot, unread);
        }
        for slot in self.admission.most_unread() {
            self.shut_out(slot, Event::Unread);
        }
    }

    /// Closes a connection that has to go, and what it has not read with it.
    fn shut_out(&mut self, slot: usize, event: Event) {
        let Self { connections, counts, .. } = self;
        if let Some(Some(connection)) = connections.get(slot) {
            counts.note(event, connection.peer());
            connection.reset_on_close();
        }
        self.close(slot);
    }

    fn close(&mut self, slot: usize) {
        if self.connections.get_mut(slot).and_then(Option::take).is_some() {
            self.admission.leave(slot);
            // There is room now.
            self.retry = None;
        }
    }
}
