//! `--set stages.2.dedup.keep=last`: values given beside the spec.

use super::source::SpecSource;
use super::tree::{Budget, Flaw, MAX_DEPTH, Node, Place, Value};
use super::yaml;
use crate::error::{Mistake, nearest};

/// Applies all overrides, in order. The path's steps are keys and list indices; a key with a dot in it is put in double quotes.
/// Keys that are not there are made; the schema check finds those that should not be.
pub(crate) fn apply(root: &mut Node, overrides: &[(String, String)], source: &mut SpecSource, budget: &mut Budget, flaws: &mut Vec<Flaw>) {
    for (path, value) in overrides {
        let whole = format!("{path}={value}");
        let offset = path.len() + 1;
        let text = source.add_override(whole.clone());
        let path_at = Place { text, start: 0, end: path.len() };
        let parsed = yaml::parse(&whole, offset, text, budget);
        if !parsed.flaws.is_empty() {
            flaws.extend(parsed.flaws);
            continue;
        }
        let nothing = || Node::new(Value::Null, Place { text, start: offset, end: offset });
        let node = Node { key: Some(path_at), ..parsed.root.unwrap_or_else(nothing) };
        let put = steps(path).and_then(|steps| put(root, &steps, node, path_at));
        if let Err(mistake) = put {
            flaws.push(Flaw::new(path_at, mistake));
        }
    }
}

fn steps(path: &str) -> Result<Vec<String>, Mistake> {
    let mut steps = vec![String::new()];
    let mut quoted = false;
    for c in path.chars() {
        match c {
            '"' => quoted = !quoted,
            '.' if !quoted => steps.push(String::new()),
            c => steps.last_mut().into_iter().for_each(|s| s.push(c)),
        }
    }
    if quoted || steps.iter().any(String::is_empty) || steps.len() > MAX_DEPTH {
        return Err(
            Mistake::new("", format!("`{path}` is no path into the spec")).help("write for example `--set stages.2.dedup.keep=last`")
        );
    }
    Ok(steps)
}

fn put(node: &mut Node, steps: &[String], new: Node, path_at: Place) -> Result<(), Mistake> {
    let Some((step, rest)) = steps.split_first() else {
        *node = new;
        return Ok(());
    };
    // `- shuffle` takes options as `- shuffle: {…}` does; an empty value takes entries.
    match &node.value {
        Value::Text(name) if name == step && !rest.is_empty() => {
            let at = node.at;
            let options = Node { key: Some(at), ..Node::new(Value::Map(Default::default()), at) };
            node.value = Value::Map([(name.clone(), options)].into_iter().collect());
        }
        Value::Null => node.value = Value::Map(Default::default()),
        _ => {}
    }
    match &mut node.value {
        Value::Map(map) => {
            let entry = map.entry(step.clone()).or_insert_with(|| Node { key: Some(path_at), ..Node::new(Value::Null, path_at) });
            put(entry, rest, new, path_at)
        }
        Value::List(items) => {
            let count = items.len();
            let index = step.parse::<usize>().ok().filter(|i| *i <= count);
            let Some(index) = index else {
                let message = format!("`{step}` is no index of a list with {count} entries");
                return Err(Mistake::new("", message).help(format!("entries count from 0; {count} adds one at the end")));
            };
            if index == count {
                items.push(Node::new(Value::Null, path_at));
            }
            put(&mut items[index], rest, new, path_at)
        }
        _ => {
            let near = match &node.value {
                Value::Text(name) => Some(nearest(step, [name.as_str()])).filter(|n| n.starts_with("did you mean")),
                _ => None,
            };
            let help = near.unwrap_or_else(|| "the path must lead through maps and lists".to_owned());
            Err(Mistake::new("", format!("`{step}` cannot be set within {}", node.words())).help(help))
        }
    }
}
