//! Tasks.

use std::panic::Location;
use std::sync::Arc;

/// A spawned future: a future of its output. Dropping it cancels the task; [`detach`](async_task::Task::detach)
/// lets it run on. A panic of the task comes out where it is awaited.
pub type Task<T> = async_task::Task<T, TaskMetadata>;

/// What a task is called and where it was spawned.
#[derive(Debug, Clone)]
pub struct TaskMetadata {
    name: Arc<str>,
    location: &'static Location<'static>,
}

impl TaskMetadata {
    pub(crate) fn new(name: Arc<str>, location: &'static Location<'static>) -> Self {
        Self { name, location }
    }

    /// The name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The line that spawned it.
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }
}

/// Where tasks can be spawned.
pub trait Spawn: Send + Sync {
    /// Starts `future` as a task called `name`.
    #[track_caller]
    fn spawn<T, F>(&self, name: impl Into<Arc<str>>, future: F) -> Task<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static;
}
