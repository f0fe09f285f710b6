//! The part of OpenVMM's `inspect` that a worker needs: named values that are collected on request.

use crate::rpc::Rpc;
use std::fmt;

/// A request for the state of a component. [`Deferred::respond`] answers it.
#[derive(Debug)]
#[must_use = "dropping it unanswered fails the inspection"]
pub struct Deferred(Rpc<(), Response>);

impl Deferred {
    /// Answers with the fields that `f` fills in.
    pub fn respond<F: FnOnce(&mut Response)>(self, f: F) {
        self.0.handle_sync(|()| {
            let mut response = Response::default();
            f(&mut response);
            response
        });
    }
}

impl From<Rpc<(), Response>> for Deferred {
    fn from(rpc: Rpc<(), Response>) -> Self {
        Self(rpc)
    }
}

/// Named values, in the order in which they were added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response(Vec<(String, String)>);

impl Response {
    /// Adds a field.
    pub fn field(&mut self, name: &str, value: impl fmt::Display) -> &mut Self {
        self.0.push((name.to_owned(), value.to_string()));
        self
    }

    /// The value of a field, if the field exists.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    }

    /// All fields.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}
