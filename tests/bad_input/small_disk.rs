//! A small disk that only one test and its servers see: a file system of its own in a mount namespace of its own.

use super::peers::script;
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// What the disk is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Medium {
    /// Memory.
    Tmpfs,
    /// A file with ext4 in it; only root may mount that.
    Ext4,
}

/// A mounted disk. Dropping it ends the process that holds the mount, and the mount with it.
pub struct SmallDisk {
    holder: Child,
    /// Where it is mounted, for whoever was started with [`SmallDisk::launcher`].
    path: PathBuf,
    has_own_user: bool,
}

impl SmallDisk {
    /// Mounts `mebibytes` of `medium` over `home/data`; says why the test is skipped where that is forbidden.
    pub fn mount(home: &Path, medium: Medium, mebibytes: u32, options: &str) -> Option<Self> {
        let path = home.join("data");
        fs::create_dir_all(&path).expect("a mount point");
        let image = home.join("image");
        let mount = match medium {
            Medium::Tmpfs => format!("mount -t tmpfs -o size={mebibytes}m,{options} none \"$0\""),
            Medium::Ext4 => {
                fs::File::create(&image)
                    .and_then(|file| file.set_len(u64::from(mebibytes) << 20))
                    .expect("an image");
                format!("mkfs.ext4 -q -m 0 \"$1\" && mount -o loop,{options} \"$1\" \"$0\"")
            }
        };
        // As root of a user namespace of our own anybody may mount memory, where the machine lets them have one.
        let ways: &[(&str, bool)] =
            if medium == Medium::Tmpfs { &[("-rm", true), ("-m", false)] } else { &[("-m", false)] };
        let mut why = String::new();
        for (flags, has_own_user) in ways {
            let script = format!("{mount} && echo mounted && exec cat");
            let spawned = Command::new("unshare")
                .args([flags, "/bin/sh", "-c", &script])
                .arg(&path)
                .arg(&image)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            let Ok(mut holder) = spawned else { continue };
            let mut line = String::new();
            let stdout = holder.stdout.as_mut().expect("piped");
            let _ = BufReader::new(stdout).read_line(&mut line);
            if line == "mounted\n" {
                return Some(Self { holder, path, has_own_user: *has_own_user });
            }
            let output = holder.wait_with_output().expect("the end of a process");
            why += &script::text(&output.stderr);
        }
        eprintln!("skipped, because this machine does not let the test mount {medium:?}: {why}");
        None
    }

    /// The words that start a command where the disk is seen.
    pub fn launcher(&self) -> Vec<String> {
        let target = self.holder.id().to_string();
        let mut words = vec!["nsenter", "--mount", "--target", &target];
        if self.has_own_user {
            words.extend(["--user", "--preserve-credentials"]);
        }
        words.into_iter().map(String::from).collect()
    }

    /// A file on the disk, as this process can reach it.
    pub fn file(&self, name: &str) -> PathBuf {
        let path = self.path.strip_prefix("/").expect("an absolute path");
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(path).join(name)
    }

    /// Writes a file of at most `bytes` bytes, as far as there is room.
    pub fn fill(&self, name: &str, bytes: usize) {
        let mut file = fs::File::create(self.file(name)).expect("a file on the small disk");
        let chunk = [b'x'; 4096];
        for _ in 0..bytes / chunk.len() {
            if file.write_all(&chunk).is_err() {
                break;
            }
        }
        let _ = file.sync_all();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
