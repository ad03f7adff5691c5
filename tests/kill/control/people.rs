//! Tokens and sessions of a caller.

use serde_json::json;

use super::{
    agent::Agent,
    promise::{Fate, Minted},
    seat::Ask,
};

/// Most tokens and sessions that stand at once.
const MANY: usize = 5;

impl Agent {
    fn standing(&self) -> Vec<usize> {
        let all = self.tokens.iter().enumerate();
        all.filter(|(_, token)| token.fate == Fate::Stands).map(|(index, _)| index).collect()
    }

    /// Makes a token, with its own or with one that it made.
    pub(crate) fn mint(&mut self) {
        let standing = self.standing();
        if standing.len() >= MANY {
            return self.revoke_any();
        }
        let parent = self.random.pick(&standing).copied().filter(|_| self.random.below(3) == 0);
        let name = self.new_name("t");
        let body = match self.random.below(2) {
            0 => json!({ "name": name, "same_principal": true }),
            _ => json!({ "name": name, "quota": { "workspaces": 1 } }),
        };
        let ask = Ask::new("POST", "/api/v1/tokens").json(&body);
        let with = parent.map(|index| self.tokens[index].text.clone()).or(self.token.clone());
        let Some(answer) = ask.send(&self.seat, with.as_deref()) else { return };
        if !answer.is_ok() {
            // Tokens made with tokens go so deep and no deeper.
            assert!(matches!(answer.status, 409 | 429), "{} {}", answer.status, answer.text());
            return;
        }
        self.note("token.create", &answer);
        let made = answer.json();
        self.tokens.push(Minted {
            id: made["info"]["id"].as_str().expect("an id").to_owned(),
            text: made["token"].as_str().expect("a text").to_owned(),
            parent,
            fate: Fate::Stands,
        });
    }

    /// It, and everything made with it.
    fn line(&self, index: usize) -> Vec<usize> {
        let mut line = vec![index];
        for (child, token) in self.tokens.iter().enumerate() {
            if token.parent.is_some_and(|parent| line.contains(&parent)) {
                line.push(child);
            }
        }
        line
    }

    /// Revokes one, twice at once where it is drawn so: neither answer comes before it is so.
    pub(crate) fn revoke_any(&mut self) {
        let standing = self.standing();
        let Some(index) = self.random.pick(&standing).copied() else { return };
        let ask = Ask::new("DELETE", format!("/api/v1/tokens/{}", self.tokens[index].id));
        let line = self.line(index);
        for one in &line {
            if self.tokens[*one].fate == Fate::Stands {
                self.tokens[*one].fate = Fate::Either;
            }
        }
        let twice = self.random.below(2) == 0;
        loop {
            let (seat, token) = (&self.seat, self.token.as_deref());
            let answers = std::thread::scope(|scope| {
                let other = twice.then(|| scope.spawn(|| ask.send(seat, token)));
                let one = ask.send(seat, token);
                let other = other.map(|other| other.join().expect("a call does not panic"));
                [one, other.flatten()]
            });
            let mut done = false;
            for answer in answers.into_iter().flatten() {
                assert!(answer.is_ok() || answer.status == 429, "{}", answer.text());
                self.note("token.revoke", &answer);
                done |= answer.is_ok();
            }
            if done {
                break;
            }
        }
        for one in line {
            self.tokens[one].fate = Fate::Gone;
        }
    }

    /// Shows a token that it made at some time.
    pub(crate) fn present_any(&mut self) {
        let indices: Vec<usize> = (0..self.tokens.len()).collect();
        if let Some(index) = self.random.pick(&indices).copied() {
            self.present(index);
        }
    }

    pub(crate) fn present(&self, index: usize) {
        let token = &self.tokens[index];
        let ask = Ask::new("GET", "/api/v1/whoami");
        let Some(answer) = ask.send(&self.seat, Some(&token.text)) else { return };
        match token.fate {
            Fate::Stands => {
                assert!(matches!(answer.status, 200 | 429), "{} is lost", token.id);
            }
            Fate::Gone => assert_eq!(answer.status, 401, "{} was revoked", token.id),
            Fate::Either => {}
        }
    }

    pub(crate) fn any_session(&mut self) -> Option<String> {
        let all = self.sessions.iter().filter(|(_, fate)| **fate == Fate::Stands);
        let all: Vec<String> = all.map(|(id, _)| id.clone()).collect();
        self.random.pick(&all).cloned()
    }

    pub(crate) fn begin_session(&mut self) {
        let standing = self.sessions.values().filter(|fate| **fate == Fate::Stands).count();
        if standing >= MANY {
            return self.end_session();
        }
        let ask = Ask::new("POST", "/api/v1/sessions").json(&json!({ "client": self.stem }));
        let answer = self.call("session.create", &ask);
        if let Some(answer) = answer.filter(super::seat::Answer::is_ok) {
            let id = answer.json()["id"].as_str().expect("an id").to_owned();
            self.sessions.insert(id, Fate::Stands);
        }
    }

    pub(crate) fn end_session(&mut self) {
        let Some(id) = self.any_session() else { return };
        let ask = Ask::new("DELETE", format!("/api/v1/sessions/{id}"));
        loop {
            match self.call("session.end", &ask) {
                Some(answer) if answer.is_ok() => break,
                Some(answer) => assert_eq!(answer.status, 429, "{id}: {}", answer.text()),
                None => {}
            }
        }
        self.sessions.insert(id, Fate::Gone);
    }

    /// Calls in one of its sessions.
    pub(crate) fn use_session(&mut self) {
        let all: Vec<String> = self.sessions.keys().cloned().collect();
        if let Some(id) = self.random.pick(&all).cloned() {
            self.show_session(&id);
        }
    }

    pub(crate) fn show_session(&mut self, id: &str) {
        let ask = Ask::new("GET", "/api/v1/whoami").header("Pinfold-Session", id);
        let Some(answer) = self.call("", &ask).filter(|answer| answer.status != 429) else {
            return;
        };
        match self.sessions[id] {
            Fate::Stands => assert_eq!(answer.status, 200, "{id} is lost: {}", answer.text()),
            Fate::Gone => assert_eq!(answer.status, 404, "{id} had ended: {}", answer.text()),
            Fate::Either => {}
        }
    }

    /// Makes a session of its own the owner of a workspace.
    pub(crate) fn adopt(&mut self, name: &str) {
        let Some(to) = self.any_session() else { return };
        let ask = Ask::new("POST", "/api/v1/sessions/adopt")
            .header("Pinfold-Session", &to)
            .json(&json!({ "workspace": name }));
        let answer = self.call("session.adopt", &ask);
        let sessions = self.sessions.clone();
        let owners = &mut self.space(name).owners;
        match answer {
            Some(answer) if answer.is_ok() => *owners = [Some(to)].into(),
            Some(answer) => {
                assert!(matches!(answer.status, 409 | 429), "{}", answer.text());
                // A session that has ended loses what it owned to whoever asks.
                let defended = owners
                    .iter()
                    .flatten()
                    .any(|id| sessions.get(id) != Some(&Fate::Gone) && *id != to);
                assert!(defended || answer.status == 429, "{name} is nobody's: {}", answer.text());
            }
            None => drop(owners.insert(Some(to))),
        }
    }

    /// Takes over what another session of its own owns.
    pub(crate) fn take_over(&mut self) {
        let (Some(from), Some(to)) = (self.any_session(), self.any_session()) else { return };
        if from == to {
            return;
        }
        let ask = Ask::new("POST", format!("/api/v1/sessions/{from}/takeover"))
            .header("Pinfold-Session", &to);
        let answer = self.call("session.takeover", &ask);
        let whole = match &answer {
            Some(answer) if answer.is_ok() => true,
            Some(answer) => {
                assert_eq!(answer.status, 429, "{}", answer.text());
                return;
            }
            None => false,
        };
        for space in self.spaces.values_mut() {
            if space.owners.contains(&Some(from.clone())) {
                space.owners.insert(Some(to.clone()));
                if whole {
                    space.owners.remove(&Some(from.clone()));
                }
            }
        }
    }
}
