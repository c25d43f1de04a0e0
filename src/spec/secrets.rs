//! Keys written straight into a spec: refused, and never shown.

use super::source::SpecSource;
use super::tree::{Flaw, Node, Place, Value, join};
use crate::error::Mistake;

/// What says where a key lies.
const SCHEMES: [&str; 2] = ["env:", "file:"];
/// Values beside keys that are no secrets.
const OPEN: [&str; 2] = ["aad_prefix", "plaintext_footer"];

/// Finds every value below `sink.encryption` and `sources.*.decryption` that does not say where a key lies: it may be the key itself. Each is a
/// mistake; no check looks at it again, and it is masked in the source (wherever the same text stands), so that no message can show it.
pub(crate) fn refuse(root: &mut Node, source: &mut SpecSource, flaws: &mut Vec<Flaw>) {
    let mut found = Found::default();
    if let Some(node) = child(root, "sink").and_then(|sink| child(sink, "encryption")) {
        found.look(node, "/sink/encryption");
    }
    if let Some(Node { value: Value::Map(sources), .. }) = child(root, "sources") {
        for (name, node) in sources.iter_mut() {
            if let Some(node) = child(node, "decryption") {
                found.look(node, &join(&join("/sources", name), "decryption"));
            }
        }
    }
    found.secrets.iter().filter(|s| !s.trim().is_empty()).for_each(|secret| {
        root.walk("", &mut |_, node| {
            if matches!(&node.value, Value::Text(text) if text == secret) {
                found.places.push(node.at);
            }
        });
    });
    found.places.iter().for_each(|place| source.mask(*place));
    flaws.extend(found.flaws);
}

fn child<'a>(node: &'a mut Node, key: &str) -> Option<&'a mut Node> {
    match &mut node.value {
        Value::Map(map) => map.get_mut(key),
        _ => None,
    }
}

#[derive(Default)]
struct Found {
    secrets: Vec<String>,
    places: Vec<Place>,
    flaws: Vec<Flaw>,
}

impl Found {
    fn look(&mut self, node: &mut Node, pointer: &str) {
        match &mut node.value {
            Value::Map(map) => {
                map.iter_mut().filter(|(k, _)| !OPEN.contains(&k.as_str())).for_each(|(k, n)| self.look(n, &join(pointer, k)));
            }
            Value::List(items) => items.iter_mut().enumerate().for_each(|(i, n)| self.look(n, &join(pointer, &i.to_string()))),
            Value::Null | Value::Broken => {}
            Value::Text(text) if names_a_place(text) => {}
            other => {
                if let Value::Text(text) = other {
                    self.secrets.push(text.clone());
                }
                *other = Value::Broken;
                self.places.push(node.at);
                let mistake = Mistake::new(pointer, "a key does not stand in a spec: a spec names where it lies")
                    .help("put the key into an environment variable or a file, and write `env:NAME` or `file:path`");
                self.flaws.push(Flaw::new(node.at, mistake));
            }
        }
    }
}

/// `env:` with the name of a variable, or `file:` with a path.
fn names_a_place(text: &str) -> bool {
    let word = |name: &str| {
        let mut chars = name.chars();
        chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_') && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let is_key = |text: &str| matches!(text.len(), 32 | 48 | 64) && text.chars().all(|c| c.is_ascii_hexdigit());
    match SCHEMES.map(|s| text.strip_prefix(s)) {
        [Some(name), _] => word(name) && !is_key(name),
        [_, Some(path)] => !path.trim().is_empty() && !is_key(path),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::load;

    const KEY: &str = "c29tZSBzZWNyZXQga2V5ISE=";

    fn spec(vars: &str, sink: &str, source: &str) -> String {
        format!(
            "apiVersion: feedline/v1\nname: x\nvars: {vars}\nsources:\n  a:\n    uri: in\n    decryption: {source}\nsink:\n  uri: out\n  encryption: {sink}\n"
        )
    }

    /// What is told of a spec in every form, with some environment.
    fn told(text: &str, set: &[(&str, &str)]) -> String {
        let set: Vec<_> = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let e = load(text, "x.yaml", &set, &|name| (name == "RAW").then(|| KEY.to_owned())).unwrap_err();
        format!("{}\n{}\n{}\n{e:?}", e.plain(), e.fancy(false), e.to_json())
    }

    #[test]
    fn a_key_in_a_spec_is_refused_and_never_shown() {
        let good = "{ footer_key: env:K }";
        let cases = [
            spec("{}", &format!("{{ footer_key: {KEY} }}"), good),
            spec("{}", &format!("{{ footer_key: env:K, column_keys: {{ ssn: \"{KEY}\" }} }}"), good),
            spec("{}", &format!("{{ footer_key: env:K, colum_keys: {{ ssn: {KEY} }} }}"), good),
            spec("{}", good, &format!("{{ footer_key: file:k, column_keys: {{ ssn: env:{KEY} }} }}")),
            spec("{}", good, &format!("{{ footer_key: [{KEY}] }}")),
            spec("{}", KEY, good),
            spec("{}", good, "{ footer_key: env:abcdef0123456789abcdef0123456789 }"),
            spec(&format!("{{ k: {KEY} }}"), "{ footer_key: \"${k}\" }", good),
            spec("{}", "{ footer_key: \"${RAW}\" }", good),
        ];
        for case in &cases {
            let told = told(case, &[]);
            assert!(told.contains("a key does not stand in a spec"), "{told}");
            assert!(!told.contains(KEY) && !told.contains("abcdef0123456789"), "{told}");
        }
        let told = told(&spec("{}", good, good), &[("sink.encryption.footer_key", KEY)]);
        assert!(told.contains("a key does not stand in a spec") && !told.contains(KEY), "{told}");
    }

    #[test]
    fn numbers_are_refused_as_keys_too() {
        let told = told(&spec("{}", "{ footer_key: 12345678901234567 }", "{ column_keys: { a: 7654321 } }"), &[]);
        assert!(!told.contains("12345678901234567") && !told.contains("7654321"), "{told}");
    }

    #[test]
    fn places_of_keys_pass() {
        let sink = "{ footer_key: env:FOOTER_KEY, column_keys: { ssn: \"file:/keys/s n\" }, plaintext_footer: true }";
        let text = spec("{}", sink, "{ footer_key: file:k, aad_prefix: x }");
        let loaded = load(&text, "x.yaml", &[], &|_| None).unwrap();
        assert!(loaded.pipeline.sink.encryption.unwrap().plaintext_footer);
        let told = told(&spec("{}", "{ footer_key: env:K }", "{ aad_prefix: x }"), &[]);
        assert!(told.contains("no key is named"), "{told}");
    }
}
