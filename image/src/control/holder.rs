//! What the protocol needs of a repository: something that can be opened by one process at a time, and then carries verbs
//! out. Imports the plain types beside it.

use std::{fs::File, io, path::Path};

use async_trait::async_trait;

use super::{Failure, Options, Reply, Request, Role};
use crate::event::EventSink;

/// A verb on its way to be carried out.
#[derive(Debug)]
pub struct Order {
    /// The verb.
    pub request: Request,
    /// What every verb takes.
    pub options: Options,
    /// The standard stream that the verb reads or writes, if it does.
    pub stream: Option<File>,
}

impl Order {
    /// A second one that shares the stream.
    pub(super) fn again(&self) -> io::Result<Self> {
        let stream = self.stream.as_ref().map(File::try_clone).transpose()?;
        Ok(Self { request: self.request.clone(), options: self.options.clone(), stream })
    }
}

/// A repository that some process may hold.
#[async_trait]
pub trait Repository: Send + Sync {
    /// What holding it gives.
    type Holder: Holder;

    /// Where it lies, and so where its control socket lies. It need not exist before it was opened.
    fn directory(&self) -> &Path;

    /// Becomes the holder; `None` when another process is.
    ///
    /// # Errors
    /// When nobody can hold it.
    async fn open(&self, role: Role) -> Result<Option<Self::Holder>, Failure>;
}

/// Carries verbs out. Dropping it lets go of the repository.
#[async_trait]
pub trait Holder: Send + Sync + 'static {
    /// Carries one verb out, beside others. Dropping the future stops the verb and leaves the repository whole.
    ///
    /// # Errors
    /// [`Failure`] says why it was not done.
    async fn execute(&self, order: Order, events: &dyn EventSink) -> Result<Reply, Failure>;

    /// Ends what runs and makes everything durable.
    async fn close(&self);
}
