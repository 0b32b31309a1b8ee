//! Reads what a configuration is made of: the file, what it refers to, and the environment.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::ServerArguments;
use crate::config::{
    CONFIG_BYTES_MAX, Config, ConfigError, Loaded, Notice, Sources, Start, flags_of_shell, load,
};

/// A configuration with where it came from.
#[derive(Debug)]
pub struct Gathered {
    /// Its directories are absolute.
    pub config: Config,
    pub notices: Vec<Notice>,
    /// The file, absolute; `None` where no file was given.
    pub file: Option<PathBuf>,
    /// `ZOOPIDFILE`, or `zookeeper_server.pid` in the data directory.
    pub pid_file: PathBuf,
    /// Where `start` sends what the server says: in `ZOO_LOG_DIR`, or the data directory.
    pub log_file: PathBuf,
}

/// Variables with options of the Java machine, as `zkServer.sh` passes them; the later win.
const FLAG_VARIABLES: [&str; 2] = ["SERVER_JVMFLAGS", "JVMFLAGS"];

/// Files beside the configuration that set such variables.
const FLAG_FILES: [&str; 2] = ["zookeeper-env.sh", "java.env"];

type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

pub fn gather(
    arguments: &ServerArguments,
    config_dir: Option<&Path>,
    environment: Environment<'_>,
) -> Result<Gathered, ConfigError> {
    let mut sources = Sources { sets: arguments.sets.clone(), ..Sources::default() };
    if let Some(cores) = &arguments.cores {
        sources.sets.push(format!("ringkeeper.cores={cores}"));
    }
    let file = config_file(&arguments.words, config_dir, environment).map(absolute);
    if let Some(path) = &file {
        let name = path.display().to_string();
        let wrong = |reason: String| ConfigError::Read { file: name.clone(), reason };
        let text = read(path).map_err(wrong)?.ok_or_else(|| wrong("no such file".into()))?;
        for name in FLAG_FILES {
            let beside = path.with_file_name(name);
            if let Ok(Some(text)) = read(&beside) {
                let options = flags_of_shell(&String::from_utf8_lossy(&text));
                sources.flags.push((beside.display().to_string(), options));
            }
        }
        sources.start = Start::File { name, text };
    } else if !arguments.words.is_empty() {
        sources.start = Start::Words(arguments.words.clone());
    }
    for variable in FLAG_VARIABLES {
        if let Some(text) = environment(variable) {
            sources.flags.push((variable.to_owned(), text));
        }
    }
    if environment("ZOO_DATADIR_AUTOCREATE_DISABLE").is_some() {
        let option = "-Dzookeeper.datadir.autocreate=false";
        sources.flags.push(("ZOO_DATADIR_AUTOCREATE_DISABLE".into(), option.into()));
    }

    let Loaded { mut config, notices } = load(&sources, &mut |path: &Path| read(path))?;
    config.data_dir = absolute(config.data_dir);
    config.data_log_dir = absolute(config.data_log_dir);
    let pid_file = environment("ZOOPIDFILE")
        .map_or_else(|| config.data_dir.join("zookeeper_server.pid"), |path| absolute(path.into()));
    let log_dir =
        environment("ZOO_LOG_DIR").map_or_else(|| config.data_dir.clone(), |path| absolute(path.into()));
    config.audit_beside(&log_dir);
    let log_name = environment("ZOO_LOG_FILE").unwrap_or_else(|| {
        let user =
            environment("USER").or_else(|| environment("LOGNAME")).unwrap_or_else(|| "ringkeeper".into());
        let host = read(Path::new("/proc/sys/kernel/hostname"))
            .ok()
            .flatten()
            .map_or_else(|| "localhost".into(), |name| String::from_utf8_lossy(&name).trim().to_owned());
        format!("zookeeper-{user}-server-{host}.out")
    });
    Ok(Gathered { config, notices, file, pid_file, log_file: log_dir.join(log_name) })
}

/// Which file is meant, if any. A bare name is looked for in the configuration directory (`--config`, `ZOOCFGDIR`);
/// a path with a directory is taken as it is; without a name `ZOOCFG` or `zoo.cfg` counts if there is such a directory.
/// Source: ZooKeeper `zkServer.sh`, `zkEnv.sh`.
fn config_file(words: &[String], config_dir: Option<&Path>, environment: Environment<'_>) -> Option<PathBuf> {
    let directory = config_dir.map(Path::to_owned).or_else(|| environment("ZOOCFGDIR").map(PathBuf::from));
    let named = match words {
        [name] => PathBuf::from(name),
        [] => match (environment("ZOOCFG"), &directory) {
            (Some(name), _) => PathBuf::from(name),
            (None, Some(_)) => PathBuf::from("zoo.cfg"),
            (None, None) => return None,
        },
        _ => return None,
    };
    let is_bare = named.parent().is_none_or(|parent| parent.as_os_str().is_empty());
    match directory {
        Some(directory) if is_bare => {
            let there = directory.join(&named);
            // A name that is only found here is meant to be here.
            if !there.exists() && named.exists() { Some(named) } else { Some(there) }
        }
        _ => Some(named),
    }
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// A file's bytes, a little more than are acceptable at most; `None` if there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    use std::io::Read as _;
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error.to_string()),
    };
    let mut bytes = Vec::new();
    let limit = CONFIG_BYTES_MAX as u64 + 1;
    file.take(limit).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: &str) -> Option<String> {
        None
    }

    fn arguments(words: &[&str]) -> ServerArguments {
        ServerArguments {
            words: words.iter().map(|word| (*word).into()).collect(),
            ..ServerArguments::default()
        }
    }

    #[test]
    fn no_file_means_data_beside_us() {
        let gathered = gather(&arguments(&[]), None, &nothing).unwrap();
        let here = std::env::current_dir().unwrap();
        assert_eq!(gathered.config.data_dir, here.join("data"));
        assert_eq!(gathered.pid_file, here.join("data/zookeeper_server.pid"));
        assert_eq!(gathered.file, None);
    }

    #[test]
    fn bare_names_are_looked_for_in_the_configuration_directory() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("zoo.cfg"), "dataDir=/d\nclientPort=1").unwrap();
        std::fs::write(directory.path().join("other.cfg"), "dataDir=/d\nclientPort=2").unwrap();
        std::fs::write(
            directory.path().join("java.env"),
            "export JVMFLAGS=\"-Djute.maxbuffer=5000 $JVMFLAGS\"",
        )
        .unwrap();
        let in_environment = |name: &str| match name {
            "ZOOCFGDIR" => Some(directory.path().display().to_string()),
            "SERVER_JVMFLAGS" => Some("-Dzookeeper.snapCount=77".to_owned()),
            "ZOOPIDFILE" => Some("/run/zk.pid".to_owned()),
            "ZOO_LOG_DIR" => Some("/var/log/zk".to_owned()),
            "ZOO_LOG_FILE" => Some("zk.out".to_owned()),
            "ZOO_DATADIR_AUTOCREATE_DISABLE" => Some("1".to_owned()),
            _ => None,
        };
        let gathered = gather(&arguments(&[]), None, &in_environment).unwrap();
        assert_eq!(gathered.config.client_address.unwrap().port, 1);
        assert_eq!(gathered.config.jute_max_buffer_bytes, 5000);
        assert_eq!(gathered.config.storage.snap_count, 77);
        assert!(!gathered.config.storage.data_dir_autocreate);
        assert_eq!(gathered.pid_file, Path::new("/run/zk.pid"));
        assert_eq!(gathered.log_file, Path::new("/var/log/zk/zk.out"));
        let gathered = gather(&arguments(&["other.cfg"]), Some(directory.path()), &nothing).unwrap();
        assert_eq!(gathered.config.client_address.unwrap().port, 2);
        let path = directory.path().join("zoo.cfg");
        let gathered = gather(&arguments(&[path.to_str().unwrap()]), None, &nothing).unwrap();
        assert_eq!(gathered.file.unwrap(), path);
    }

    #[test]
    fn a_missing_file_and_a_directory_are_named() {
        let error = gather(&arguments(&["/nowhere/zoo.cfg"]), None, &nothing).unwrap_err();
        assert_eq!(error.to_string(), "/nowhere/zoo.cfg: no such file");
        let directory = tempfile::tempdir().unwrap();
        let error = gather(&arguments(&[directory.path().to_str().unwrap()]), None, &nothing).unwrap_err();
        assert!(error.to_string().contains("directory"), "{error}");
    }

    #[test]
    fn cores_are_a_key_too() {
        let given = ServerArguments { cores: Some("2".into()), ..ServerArguments::default() };
        let gathered = gather(&given, None, &nothing).unwrap();
        assert_eq!(gathered.config.cores, crate::config::Cores::Count(2));
        let given = ServerArguments { cores: Some("x".into()), ..ServerArguments::default() };
        assert!(
            gather(&given, None, &nothing).unwrap_err().to_string().starts_with("--set: ringkeeper.cores=x")
        );
    }
}
