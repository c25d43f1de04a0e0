//! What every store must give, whoever runs it: one suite for the disk, memory, S3 and HDFS.

use std::collections::BTreeSet;

use bytes::Bytes;
use feedline::spec::stores::StoreSpec;
use feedline::storage::{Location, doctor};
use futures::future::join_all;
use object_store::{GetOptions, GetRange, ObjectStoreExt, WriteMultipart};

use crate::s3_server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};
use crate::servers::{real_stores, runtime};

/// Names that have bitten somebody.
const NAMES: &[&str] = &["plain", "a b", "ü/é", "split=x y/part-1", "100%", "%20", "a+b", "a#b", "a&b=c", "it's", "(x)", "日本"];

/// The whole suite, below a folder that is empty and stays so.
async fn contract(root: &Location) {
    creation(root).await;
    all_but_creation(root).await;
}

async fn all_but_creation(root: &Location) {
    names(root).await;
    ranges(root).await;
    uploads(root).await;
    listing(root).await;
    absence(root).await;
    for meta in root.list().await.unwrap() {
        root.store.delete(&meta.location).await.unwrap();
    }
    assert!(root.list().await.unwrap().is_empty());
}

async fn names(root: &Location) {
    let at = root.child("names");
    for name in NAMES {
        at.child(name).write(name.as_bytes().to_vec()).await.unwrap();
        assert_eq!(at.child(name).read().await.unwrap().unwrap(), name.as_bytes(), "{name}");
    }
    let listed: BTreeSet<String> = at
        .list()
        .await
        .unwrap()
        .iter()
        .map(|m| m.location.prefix_match(&at.path).unwrap().map(|p| p.as_ref().to_owned()).collect::<Vec<_>>().join("/"))
        .collect();
    assert_eq!(listed, NAMES.iter().map(|n| (*n).to_owned()).collect());
    // What was listed is found under the name that the listing gave.
    for name in listed {
        assert!(at.child(&name).head().await.unwrap().is_some(), "{name}");
    }
}

/// Of sixteen writers who create one name at once, one succeeds, and it is its bytes that stay.
async fn creation(root: &Location) {
    for race in 0..4 {
        let at = root.child(&format!("races/{race}"));
        let tries = (0..16_u8).map(|writer| {
            let at = at.clone();
            async move { (writer, at.create(vec![writer; 1000]).await.unwrap()) }
        });
        let winners: Vec<u8> = join_all(tries).await.into_iter().filter(|(_, won)| *won).map(|(writer, _)| writer).collect();
        assert_eq!(winners.len(), 1, "{winners:?} all created one name");
        assert_eq!(at.read().await.unwrap().unwrap(), vec![winners[0]; 1000]);
        assert!(!at.create("late").await.unwrap());
        at.write("replaced").await.unwrap();
        assert_eq!(at.read().await.unwrap().unwrap(), "replaced");
    }
}

async fn ranges(root: &Location) {
    let at = root.child("ranged");
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    at.write(bytes.clone()).await.unwrap();
    for range in [0..1, 0..3_000_000, 1_048_570..1_048_590, 2_999_999..3_000_000, 777..777_777] {
        let got = at.store.get_range(&at.path, range.clone()).await.unwrap();
        assert_eq!(got, bytes[range.start as usize..range.end as usize], "{range:?}");
    }
    let parts = [5..9, 2_000_000..2_000_003, 10..12];
    let got = at.store.get_ranges(&at.path, &parts).await.unwrap();
    assert!(got.iter().zip(&parts).all(|(g, r)| *g == bytes[r.start as usize..r.end as usize]));
    // A range of the object that was, once it is another.
    let before = at.head().await.unwrap().unwrap().e_tag;
    assert!(before.is_some());
    at.write(vec![1; 2_000_000]).await.unwrap();
    let options = GetOptions { range: Some(GetRange::Bounded(0..10)), if_match: before.clone(), ..Default::default() };
    match at.store.get_opts(&at.path, options).await {
        Err(object_store::Error::Precondition { .. }) => {}
        Ok(got) => assert_ne!(got.meta.e_tag, before, "a replaced object cannot be told from what it was"),
        Err(e) => panic!("{e}"),
    }
}

async fn uploads(root: &Location) {
    let at = root.child("large object");
    let bytes: Bytes = (0..24_000_000_u32).map(|i| (i % 253) as u8).collect::<Vec<_>>().into();
    let mut upload = WriteMultipart::new_with_chunk_size(at.store.put_multipart(&at.path).await.unwrap(), 6 << 20);
    for part in bytes.chunks(1_000_003) {
        upload.write(part);
    }
    assert!(at.head().await.unwrap().is_none(), "visible before it is whole");
    upload.finish().await.unwrap();
    assert!(at.read().await.unwrap().unwrap() == bytes);
    let never = root.child("never");
    let mut upload = never.store.put_multipart(&never.path).await.unwrap();
    upload.put_part(vec![1; 6 << 20].into()).await.unwrap();
    upload.abort().await.unwrap();
    assert!(never.head().await.unwrap().is_none());
}

/// More objects than a page of S3 holds, each seen as soon as it is written.
async fn listing(root: &Location) {
    let at = root.child("many");
    for block in 0..11 {
        join_all((0..100).map(|i| {
            let at = at.child(&format!("{block:02}/{i:03}"));
            async move { at.write(vec![0; i]).await.unwrap() }
        }))
        .await;
        assert_eq!(at.child(&format!("{block:02}")).list().await.unwrap().len(), 100);
    }
    let found = at.list().await.unwrap();
    assert_eq!(found.len(), 1100);
    assert!(found.is_sorted_by(|a, b| a.location < b.location) && found.iter().any(|m| m.size == 99));
}

async fn absence(root: &Location) {
    let none = root.child("no such object");
    assert!(none.read().await.unwrap().is_none() && none.head().await.unwrap().is_none());
    assert!(none.list().await.unwrap().is_empty());
    none.remove().await.unwrap();
    let at = root.child("gone");
    at.write("x").await.unwrap();
    at.remove().await.unwrap();
    assert!(at.read().await.unwrap().is_none() && at.head().await.unwrap().is_none());
}

/// A folder that may not be used says so: neither a panic nor an empty listing.
async fn refusal(at: &Location) {
    let e = at.child("x").write("x").await.unwrap_err();
    let told = format!("{e} {}", e.to_do().unwrap_or_default()).to_lowercase();
    assert!(e.exit_code() == 3 && (told.contains("denie") || told.contains("permission")), "{told}");
}

#[test]
fn the_disk_and_memory_keep_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    for uri in [dir.path().join("here").to_str().unwrap(), "memory://contract/here"] {
        let root = Location::open(uri, dir.path()).unwrap();
        runtime().block_on(contract(&root));
    }
}

/// The protocol itself, on loopback: a server in this process (s3s-fs). It is a server for tests: it knows no If-None-Match, so the race is left to the
/// real one.
#[test]
fn s3_in_this_process_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let server = S3Server::start(&dir.path().join("s3"));
    let keys = format!("[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n");
    std::fs::write(dir.path().join("keys"), keys).unwrap();
    let options = StoreSpec {
        endpoint: Some(server.endpoint()),
        allow_http: Some(true),
        credentials_file: Some("keys".to_owned()),
        region: Some("us-east-1".to_owned()),
        ..Default::default()
    };
    let stores = [("s3://".to_owned(), options)].into_iter().collect();
    let root = Location::open_with(&format!("s3://{BUCKET}/here"), dir.path(), &stores).unwrap();
    runtime().block_on(all_but_creation(&root));
}

#[test]
fn real_servers_keep_the_contract() {
    for uri in real_stores() {
        let root = Location::open(&format!("{uri}/contract suite"), std::path::Path::new("/")).unwrap();
        runtime().block_on(async {
            contract(&root).await;
            let checks = doctor::examine(&root.child("doctor"), false).await;
            assert!(checks.len() == 10 && checks.iter().all(|c| c.ok), "{checks:#?}");
        });
    }
}

#[test]
fn a_real_hdfs_refuses_what_the_user_may_not_do() {
    let Ok(uri) = std::env::var("FEEDLINE_TEST_HDFS") else { return };
    let root = Location::open(&format!("{uri}/private"), std::path::Path::new("/")).unwrap();
    runtime().block_on(refusal(&root));
}
