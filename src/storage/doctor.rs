//! Is a store all that Feedline needs? Each property is tried for real, on objects of the doctor's own, which are removed again.

use std::time::{Duration, Instant};

use bytes::Bytes;
use object_store::{GetOptions, GetRange, ObjectStoreExt, PutPayload, WriteMultipart};
use serde::Serialize;

use super::Location;
use crate::error::{Error, Result};

/// Writers that race for one name.
const WRITERS: u8 = 8;
/// Bytes of the object that is uploaded in parts: S3 asks for 5 MiB at least in each but the last.
const LARGE: usize = (5 << 20) + 1000;

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// What was seen, or what is wrong.
    pub found: String,
    /// What to do, where it is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether it is as it must be.
    pub ok: bool,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

/// Tries what a run does to a store. With `read_only` nothing is written. The first failure ends it: what comes later rests on what came before.
pub async fn examine(at: &Location, read_only: bool) -> Vec<Check> {
    let own = at.child(&format!("feedline-doctor-{}", std::process::id()));
    let mut checks = Vec::new();
    if tried(&mut checks, "list", list(at)).await && !read_only && tried(&mut checks, "write", write(&own)).await {
        let _ = tried(&mut checks, "read", read(&own)).await
            && tried(&mut checks, "ranged read", ranged(&own)).await
            && tried(&mut checks, "read of one version", versioned(&own)).await
            && tried(&mut checks, "list after write", listed(&own)).await
            && tried(&mut checks, "create once", created(&own)).await
            && tried(&mut checks, "upload in parts", uploaded(&own)).await
            && tried(&mut checks, "unfinished uploads", unfinished(&own)).await;
        tried(&mut checks, "clean up", clean(&own)).await;
    }
    checks
}

async fn tried(checks: &mut Vec<Check>, name: &'static str, work: impl Future<Output = Result<String>>) -> bool {
    let begin = Instant::now();
    let result = work.await;
    let milliseconds = Duration::as_millis(&begin.elapsed()) as u64;
    let ok = result.is_ok();
    checks.push(match result {
        Ok(found) => Check { name, found, hint: None, ok, milliseconds },
        Err(e) => Check { name, found: e.message().to_owned(), hint: e.to_do().map(str::to_owned), ok, milliseconds },
    });
    ok
}

async fn list(at: &Location) -> Result<String> {
    let found = at.store.list_with_delimiter(Some(&at.path)).await.map_err(|e| Error::from(e).at(at.display()))?;
    Ok(format!("{} objects and {} folders", found.objects.len(), found.common_prefixes.len()))
}

fn sample() -> Bytes {
    (0..=255).collect::<Vec<u8>>().into()
}

async fn write(own: &Location) -> Result<String> {
    own.child("a b ü").write(sample()).await.map(|()| "an object whose name has a blank and an umlaut".to_owned())
}

async fn read(own: &Location) -> Result<String> {
    match own.child("a b ü").read().await? {
        Some(bytes) if bytes == sample() => Ok("as written".to_owned()),
        Some(_) => {
            Err(Error::storage("the object that was written comes back with other bytes").hint("this store cannot be trusted with data"))
        }
        None => {
            Err(Error::storage("the object that was just written is not there")
                .hint("this store does not show writes at once: use another"))
        }
    }
}

async fn ranged(own: &Location) -> Result<String> {
    let at = own.child("a b ü");
    let bytes = at.store.get_range(&at.path, 100..110).await.map_err(|e| Error::from(e).at(at.display()))?;
    match bytes == sample().slice(100..110) {
        true => Ok("10 bytes from the middle".to_owned()),
        false => Err(Error::storage("a range of the object comes back with other bytes").hint("is there a proxy that ignores `Range`?")),
    }
}

async fn versioned(own: &Location) -> Result<String> {
    let at = own.child("a b ü");
    let Some(before) = at.head().await?.and_then(|m| m.e_tag) else {
        return Ok("no ETag: changed inputs are told by their time alone".to_owned());
    };
    at.write(Bytes::from_static(b"another")).await?;
    let options = GetOptions { range: Some(GetRange::Bounded(0..2)), if_match: Some(before), ..Default::default() };
    match at.store.get_opts(&at.path, options).await {
        Err(object_store::Error::Precondition { .. }) => Ok("an object that was replaced is noticed (If-Match)".to_owned()),
        Ok(_) => Ok("the store ignores If-Match: Feedline compares the ETag of each answer instead".to_owned()),
        Err(e) => Err(Error::from(e).at(at.display())),
    }
}

async fn listed(own: &Location) -> Result<String> {
    match own.list().await?.len() {
        1 => Ok("seen at once".to_owned()),
        n => Err(Error::storage(format!("{n} objects are listed where 1 was written"))
            .hint("this store does not list writes at once: use another")),
    }
}

/// The commit hangs on this: of several who create a name at once, one succeeds.
async fn created(own: &Location) -> Result<String> {
    let at = own.child("commit");
    let races = (0..WRITERS).map(|writer| {
        let at = at.clone();
        async move { Ok::<_, Error>(at.create(vec![writer; 100]).await?.then_some(writer)) }
    });
    let winners: Vec<u8> = futures::future::try_join_all(races).await?.into_iter().flatten().collect();
    let held = at.read().await?.and_then(|bytes| bytes.first().copied());
    match winners.as_slice() {
        [winner] if held == Some(*winner) => Ok(format!("one of {WRITERS} writers at once")),
        _ => Err(Error::storage(format!("{} of {WRITERS} writers created the same name", winners.len()))
            .hint("without put-if-absent (If-None-Match) two runs can overwrite each other: use another store, or never run two at once")),
    }
}

async fn uploaded(own: &Location) -> Result<String> {
    let at = own.child("large");
    let failed = |e: object_store::Error| Error::from(e).at(at.display());
    let body = Bytes::from(vec![7; LARGE]);
    let mut upload = WriteMultipart::new(at.store.put_multipart(&at.path).await.map_err(failed)?);
    upload.put(body.clone());
    if at.head().await?.is_some() {
        return Err(Error::storage("an object is visible before its upload is complete")
            .at(at.display())
            .hint("readers could see halves: use another store"));
    }
    upload.finish().await.map_err(failed)?;
    match at.read().await?.is_some_and(|bytes| bytes == body) {
        true => Ok(format!("{LARGE} bytes, invisible until complete")),
        false => Err(Error::storage("an upload in parts comes back with other bytes")
            .at(at.display())
            .hint("this store cannot be trusted with data")),
    }
}

async fn unfinished(own: &Location) -> Result<String> {
    let Some(bucket) = own.bucket() else { return Ok("not kept by this store".to_owned()) };
    let at = own.child("never");
    let failed = |e: object_store::Error| Error::from(e).at(at.display());
    let mut upload = at.store.put_multipart(&at.path).await.map_err(failed)?;
    upload.put_part(PutPayload::from_static(b"x")).await.map_err(failed)?;
    let found = bucket.unfinished(&own.path).await?;
    upload.abort().await.map_err(failed)?;
    match found.iter().any(|u| u.path == at.path) {
        true => Ok("listed and aborted: `feedline gc` can clear them".to_owned()),
        false => Ok("this store does not list them: let a lifecycle rule abort those older than a day".to_owned()),
    }
}

async fn clean(own: &Location) -> Result<String> {
    let found = own.list().await?;
    for meta in &found {
        own.store.delete(&meta.location).await.map_err(|e| Error::from(e).at(own.display()))?;
    }
    match own.list().await?.len() {
        0 => Ok(format!("{} objects removed", found.len())),
        n => Err(Error::storage(format!("{n} objects are still there after they were removed"))
            .at(own.display())
            .hint("remove them by hand")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[tokio::test]
    async fn disk_and_memory_are_healthy_and_left_clean() {
        let dir = tempfile::tempdir().unwrap();
        for uri in [dir.path().to_str().unwrap(), "memory://doctor/x"] {
            let at = Location::open(uri, Path::new("/")).unwrap();
            let checks = examine(&at, false).await;
            assert!(checks.iter().all(|c| c.ok) && checks.len() == 10, "{checks:#?}");
            assert!(at.list().await.unwrap().is_empty());
            assert_eq!(examine(&at, true).await.len(), 1);
        }
    }
}
