//! Embedded databases that are copies of one, which is quicker than to make each.

use std::process::Command;
use std::sync::{Arc, Weak};

use lime_storage_postgres::Embedded;
use tempfile::TempDir;
use tokio::sync::Mutex;

/// An embedded database with its tables in a folder of its own; the one that it is a copy of goes with the last copy.
pub struct Copy {
    pub embedded: Embedded,
    _folder: TempDir,
    _source: Arc<TempDir>,
}

impl Copy {
    pub async fn open() -> Self {
        static SOURCE: Mutex<Weak<TempDir>> = Mutex::const_new(Weak::new());
        let mut kept = SOURCE.lock().await;
        let source = match kept.upgrade() {
            Some(source) => source,
            None => {
                let folder = TempDir::new().unwrap();
                Embedded::open(folder.path()).await.unwrap().close().await.unwrap();
                Arc::new(folder)
            }
        };
        *kept = Arc::downgrade(&source);
        drop(kept);
        let folder = TempDir::new().unwrap();
        let copied = Command::new("cp").arg("-R").arg(source.path().join(".")).arg(folder.path()).status();
        assert!(copied.unwrap().success());
        Self { embedded: Embedded::open(folder.path()).await.unwrap(), _folder: folder, _source: source }
    }
}
