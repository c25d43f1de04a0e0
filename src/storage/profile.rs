//! AWS profiles: keys and settings from the files that all of AWS's tools share.

use std::path::{Path, PathBuf};

use ini::Ini;

use crate::error::{Error, Result};

/// What a profile says. Shown without its secrets.
#[derive(Default, Clone, PartialEq, Eq)]
pub struct Profile {
    /// `aws_access_key_id`
    pub access_key: Option<String>,
    /// `aws_secret_access_key`
    pub secret_key: Option<String>,
    /// `aws_session_token`
    pub token: Option<String>,
    /// `region`
    pub region: Option<String>,
    /// `endpoint_url`
    pub endpoint: Option<String>,
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Profile(keys: {}, region: {:?}, endpoint: {:?})", self.access_key.is_some(), self.region, self.endpoint)
    }
}

/// Which files and which profile.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The file with keys.
    pub credentials: Option<PathBuf>,
    /// The file with settings.
    pub config: Option<PathBuf>,
    /// The profile.
    pub name: String,
    /// Whether it is an error that nothing is found: somebody named the profile or the file.
    pub required: bool,
}

impl Wanted {
    /// What the environment and a spec's options name together.
    pub fn new(file: Option<PathBuf>, name: Option<&str>, env: &dyn Fn(&str) -> Option<String>) -> Self {
        let home = env("HOME").map(PathBuf::from);
        let beside =
            |variable: &str, usual: &str| env(variable).map(PathBuf::from).or_else(|| Some(home.as_ref()?.join(".aws").join(usual)));
        let named = name.map(str::to_owned).or_else(|| env("AWS_PROFILE")).filter(|n| !n.is_empty());
        Self {
            required: file.is_some() || named.is_some(),
            credentials: file.or_else(|| beside("AWS_SHARED_CREDENTIALS_FILE", "credentials")),
            config: beside("AWS_CONFIG_FILE", "config"),
            name: named.unwrap_or_else(|| "default".to_owned()),
        }
    }

    /// Reads the files.
    ///
    /// # Errors
    /// A file that cannot be read, a profile that was named and is in neither file, a kind of profile that Feedline does not take.
    pub fn load(&self) -> Result<Profile> {
        let mut found = false;
        let mut profile = Profile::default();
        for (file, section) in [(&self.config, config_section(&self.name)), (&self.credentials, self.name.clone())] {
            let Some(file) = file else { continue };
            let Some(ini) = read(file, self.required)? else { continue };
            let Some(keys) = ini.section(Some(section.as_str())) else { continue };
            found = true;
            let get = |key: &str| keys.get(key).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
            let before = profile;
            profile = Profile {
                access_key: get("aws_access_key_id").or(before.access_key),
                secret_key: get("aws_secret_access_key").or(before.secret_key),
                token: get("aws_session_token").or(before.token),
                region: get("region").or(before.region),
                endpoint: get("endpoint_url").or(before.endpoint),
            };
            let elsewhere = ["role_arn", "credential_process", "sso_session", "sso_start_url"];
            if let Some(key) = elsewhere.into_iter().find(|key| keys.contains_key(*key) && profile.access_key.is_none()) {
                return Err(Error::storage(format!("the AWS profile `{}` takes its keys from elsewhere (`{key}`)", self.name))
                    .at(file.display().to_string())
                    .hint(format!("run `eval \"$(aws configure export-credentials --profile {} --format env)\"` first", self.name)));
            }
        }
        match found || !self.required {
            true => Ok(profile),
            false => Err(Error::storage(format!("there is no AWS profile `{}`", self.name))
                .at([&self.credentials, &self.config].into_iter().flatten().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "))
                .hint("check AWS_PROFILE, or `profile` in the spec's `stores`")),
        }
    }
}

fn config_section(name: &str) -> String {
    if name == "default" { name.to_owned() } else { format!("profile {name}") }
}

/// A file's sections; `None` where there is no such file. What is wrong with it is told without its text, which holds secrets.
fn read(file: &Path, required: bool) -> Result<Option<Ini>> {
    let place = || file.display().to_string();
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(_) if !required => return Ok(None),
        Err(e) => {
            return Err(Error::storage(format!("cannot read the file with AWS keys: {}", e.kind()))
                .at(place())
                .hint("let the user who runs Feedline read it"));
        }
    };
    Ini::load_from_str(&text).map(Some).map_err(|e| {
        Error::storage(format!("the file with AWS keys is no INI file: line {}, column {}", e.line, e.col))
            .at(place())
            .hint("sections are `[name]`, values `key = value`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(credentials: &str, config: &str, name: Option<&str>) -> Result<Profile> {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        std::fs::write(home.path().join(".aws/credentials"), credentials).unwrap();
        std::fs::write(home.path().join(".aws/config"), config).unwrap();
        let at = home.path().display().to_string();
        Wanted::new(None, name, &|key| (key == "HOME").then(|| at.clone())).load()
    }

    #[test]
    fn keys_and_settings_come_from_both_files() {
        let credentials =
            "[default]\naws_access_key_id = A\naws_secret_access_key = S\n[work]\naws_access_key_id = W\naws_secret_access_key=T\n";
        let config = "[profile work]\nregion = eu-west-1\nendpoint_url = http://localhost:9\n";
        let work = load(credentials, config, Some("work")).unwrap();
        assert_eq!(
            (work.access_key.as_deref(), work.region.as_deref(), work.endpoint.as_deref()),
            (Some("W"), Some("eu-west-1"), Some("http://localhost:9"))
        );
        assert_eq!(load(credentials, config, None).unwrap().access_key.as_deref(), Some("A"));
        assert_eq!(load("", "", None).unwrap(), Profile::default());
        assert!(!format!("{work:?}").contains('T'));
    }

    #[test]
    fn what_is_wrong_with_a_profile_is_told_without_secrets() {
        let e = load("[a]\naws_access_key_id = A\n", "", Some("b")).unwrap_err();
        assert!(e.message().contains("`b`"), "{e}");
        let e = load("", "[profile b]\nrole_arn = arn\nsource_profile = default\n", Some("b")).unwrap_err();
        assert!(e.to_do().unwrap().contains("export-credentials"));
        let e = load("[default\naws_secret_access_key = SECRET\n", "", Some("default")).unwrap_err();
        assert!(e.message().contains("line") && !format!("{e:?}").contains("SECRET"), "{e:?}");
    }
}
