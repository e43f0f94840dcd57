//! Who may do what: tokens and their roles.
//!
//! A token is 256 random bits. Only its SHA-256 is stored; all of them are held in memory, so that a
//! request costs no read. Whoever holds a connection open watches [`Access::revocations`].
//!
//! | file | holds |
//! |---|---|
//! | `role` | what a token may be used for |
//! | `file` | making a token, and the one file that holds one |

mod file;
mod role;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hybrid_runner_core::secret::SecretValue;
use hybrid_runner_core::{AgentId, Error, Result};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::watch;

use crate::store::{self, Db, tokens, tokens::Stored};
pub(crate) use file::ADMIN_TOKEN;
use file::{generate, read_token, write_token};
pub use role::Role;

/// A token that is to be made.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// What it may be used for.
    pub role: Role,
    /// The one runner that it is for; with [`Role::Runner`], and only there.
    pub agent: Option<AgentId>,
    /// A name for people.
    pub name: Option<String>,
}

/// A token that was made: the only time that it can be read.
#[derive(Debug)]
#[non_exhaustive]
pub struct Token {
    /// Names it in lists and when it is revoked.
    pub id: String,
    /// The token.
    pub secret: SecretValue,
}

/// Who a request comes from.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) token: String,
    pub(crate) role: Role,
    pub(crate) agent: Option<AgentId>,
    pub(crate) name: Option<String>,
}

impl Caller {
    /// The name that stands in a run that this caller stopped.
    pub(crate) fn name(&self) -> String {
        self.name
            .clone()
            .unwrap_or_else(|| format!("token {}", self.token))
    }
}

/// All tokens.
#[derive(Debug)]
pub(crate) struct Access {
    db: Db,
    by_id: RwLock<HashMap<String, Stored>>,
    /// The first bytes of the hash → id: finding one tells nothing about the rest.
    by_hash: RwLock<HashMap<[u8; 8], String>>,
    revocations: watch::Sender<()>,
    /// This control plane's own stable id.
    pub(crate) server: String,
}

impl Access {
    /// Opens the tokens; the first time makes the admin's and writes it to `admin.token`.
    pub(crate) async fn open(data_dir: &Path) -> Result<Self> {
        let opened = Db::open_access(data_dir).await?;
        if let Some(path) = &opened.set_aside {
            tracing::error!(set_aside = %path.display(), "the tokens could not be read, so that none of the old ones is valid any more; make new ones with the new token of the admin");
        }
        let db = opened.db;
        let fresh = uuid::Uuid::new_v4().to_string();
        let (server, all) = db
            .write(move |tx| {
                let server = match store::meta(tx, "server")? {
                    Some(known) => known,
                    None => store::set_meta(tx, "server", &fresh).map(|()| fresh)?,
                };
                Ok((server, tokens::all(tx)?))
            })
            .await?
            .synced()
            .await?;
        let access = Self {
            db,
            by_id: RwLock::default(),
            by_hash: RwLock::default(),
            revocations: watch::Sender::new(()),
            server,
        };
        let has_admin = all
            .iter()
            .any(|token| token.role == Role::Admin && token.revoked.is_none());
        for token in all {
            access.remember(token);
        }
        if !has_admin {
            access.make_admin(&data_dir.join(ADMIN_TOKEN)).await?;
        }
        Ok(access)
    }

    async fn make_admin(&self, path: &Path) -> Result<()> {
        let new = NewToken {
            role: Role::Admin,
            agent: None,
            name: Some("admin".to_owned()),
        };
        // Known from before a damaged store was set aside: clients hold it.
        if let Some(known) = read_token(path)? {
            self.store(&new, &known).await?;
            return Ok(());
        }
        let secret = generate()?;
        // The file first: a token that counts and that nobody knows would lock everybody out.
        write_token(path, &secret).map_err(|error| {
            Error::unavailable(format!("failed to write `{}`", path.display())).with_source(error)
        })?;
        self.store(&new, &secret).await.map(drop)
    }

    /// Makes a token; it is safe on disk when this returns.
    pub(crate) async fn create(&self, new: &NewToken) -> Result<(Stored, SecretValue)> {
        if (new.role == Role::Runner) != new.agent.is_some() {
            return Err(Error::invalid(
                "a token of role `runner` needs the id of its runner in `agent`, and no other role may have one",
            ));
        }
        let secret = generate()?;
        let stored = self.store(new, &secret).await?;
        Ok((stored, secret))
    }

    async fn store(&self, new: &NewToken, secret: &SecretValue) -> Result<Stored> {
        let stored = Stored {
            id: uuid::Uuid::new_v4().simple().to_string()[..12].to_owned(),
            // Only the hash is kept.
            hash: Sha256::digest(secret.expose()).into(),
            role: new.role,
            agent: new.agent.clone(),
            name: new.name.clone(),
            created: store::now(),
            revoked: None,
        };
        let row = stored.clone();
        self.db
            .write(move |tx| tokens::insert(tx, &row))
            .await?
            .synced()
            .await?;
        self.remember(stored.clone());
        Ok(stored)
    }

    fn remember(&self, token: Stored) {
        write(&self.by_hash).insert(head(&token.hash), token.id.clone());
        write(&self.by_id).insert(token.id.clone(), token);
    }

    /// Whose token this is, if it is one and was not revoked.
    pub(crate) fn authenticate(&self, token: &str) -> Option<Caller> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let id = read(&self.by_hash).get(&head(&hash)).cloned()?;
        let by_id = read(&self.by_id);
        let stored = by_id.get(&id)?;
        let same = bool::from(stored.hash.ct_eq(&hash));
        (same && stored.revoked.is_none()).then(|| Caller {
            token: stored.id.clone(),
            role: stored.role,
            agent: stored.agent.clone(),
            name: stored.name.clone(),
        })
    }

    /// Whether the token with that id still counts.
    pub(crate) fn is_valid(&self, id: &str) -> bool {
        read(&self.by_id)
            .get(id)
            .is_some_and(|token| token.revoked.is_none())
    }

    /// Changes whenever a token is revoked.
    pub(crate) fn revocations(&self) -> watch::Receiver<()> {
        self.revocations.subscribe()
    }

    /// Makes a token worthless, now and for ever.
    pub(crate) async fn revoke(&self, id: &str) -> Result<()> {
        if !read(&self.by_id).contains_key(id) {
            return Err(Error::not_found(format!(
                "no token `{}`",
                hybrid_runner_core::id::shorten(id)
            )));
        }
        let row = id.to_owned();
        self.db
            .write(move |tx| tokens::revoke(tx, &row))
            .await?
            .synced()
            .await?;
        if let Some(token) = write(&self.by_id).get_mut(id) {
            token.revoked.get_or_insert(store::now());
        }
        self.revocations.send_replace(());
        Ok(())
    }

    /// All tokens, the oldest first.
    pub(crate) fn all(&self) -> Vec<Stored> {
        let mut all: Vec<Stored> = read(&self.by_id).values().cloned().collect();
        all.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        all
    }

    /// The runners that have a token: they are known before they have said hello.
    pub(crate) fn agents(&self) -> Vec<AgentId> {
        let by_id = read(&self.by_id);
        let mut agents: Vec<AgentId> = by_id
            .values()
            .filter(|token| token.revoked.is_none())
            .filter_map(|token| token.agent.clone())
            .collect();
        agents.sort_unstable();
        agents.dedup();
        agents
    }

    /// Syncs and closes the state file.
    pub(crate) async fn close(&self) {
        self.db.close().await;
    }

    /// Why tokens cannot be written now.
    pub(crate) async fn trouble(&self) -> Option<String> {
        self.db.trouble().await
    }
}

fn head(hash: &[u8; 32]) -> [u8; 8] {
    hash[..8].try_into().expect("8 of 32 bytes")
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
