// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which system calls a worker may make: seccomp.
//!
//! This is a list of what is denied, with EPERM. A list of what is allowed would be shorter to reason about,
//! but it would have to hold whatever the C library, the memory allocator, the asynchronous runtime and the
//! TLS library call in any version, in any path that no test takes; and what it forgets ends a worker in
//! the middle of an outage. What is denied here is what a worker that somebody has broken into would go on
//! with: other programs, other processes, namespaces and mounts, users, changes of files by their names,
//! servers, and parts of the kernel that are large and that no worker needs.
//!
//! The list does not depend on arguments but for sockets and `clone`, so that the kernel decides nearly all
//! calls from a bitmap.

use std::collections::BTreeMap;

use anyhow::Context;
use seccompiler::sock_filter;
use seccompiler::BpfProgram;
use seccompiler::SeccompAction;
use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpArgLen::Qword;
use seccompiler::SeccompCmpOp;
use seccompiler::SeccompCondition;
use seccompiler::SeccompFilter;
use seccompiler::SeccompRule;
use seccompiler::TargetArch;

/// Numbers of system calls.
type Numbers = &'static [libc::c_long];

/// Other programs and other processes.
const PROCESSES: Numbers = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_perf_event_open,
];

/// Users, and whatever else takes a capability.
const PRIVILEGES: Numbers = &[
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    libc::SYS_acct,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_settimeofday,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_vhangup,
];

/// Namespaces and mounts.
const MOUNTS: Numbers = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_unshare,
    libc::SYS_setns,
];

/// Changes of files by their names, or of what they are; a worker writes into what is open.
const CHANGES: Numbers = &[
    libc::SYS_mknodat,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_truncate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_utimensat,
    libc::SYS_fanotify_init,
];

/// Changes that the C library's headers do not name on every architecture; their numbers are the same on all.
const NEW_CHANGES: Numbers = &[
    452, // fchmodat2
    463, // setxattrat
    466, // removexattrat
    469, // file_setattr
];

/// Servers; and large parts of the kernel that are not needed, one of which makes calls that are not seen
/// here (`io_uring`).
const SURFACE: Numbers = &[
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_personality,
    libc::SYS_mbind,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_vmsplice,
    libc::SYS_memfd_secret,
];

/// What newer architectures do not have any more.
#[cfg(target_arch = "x86_64")]
const OLD: Numbers = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_creat,
    libc::SYS_mknod,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_kexec_file_load,
    libc::SYS_modify_ldt,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: Numbers = &[];

/// Flags of `clone` that make namespaces. `clone3` has them in memory, where no filter can look.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Domains of sockets that talking to a server takes: netlink serves to look names up, and so do Unix sockets, by
/// which the C library asks daemons. It goes on to files and DNS without them.
const DOMAINS: &[i32] = &[
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
    libc::AF_UNIX,
];

/// The same for a worker that the keeper would listen to: one that was broken into would ask it to execute a
/// program.
const DOMAINS_WITHOUT_UNIX: &[i32] = &[libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Of which domains sockets may be made. `may_ask`: the keeper's control socket answers this worker's user.
pub(super) fn domains(network: bool, may_ask: bool) -> &'static [i32] {
    match (network, may_ask) {
        (false, _) => &[],
        (true, false) => DOMAINS,
        (true, true) => DOMAINS_WITHOUT_UNIX,
    }
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Denies system calls, and sockets of other domains than these, for this thread and those that it will start;
/// `false` if the kernel has no seccomp, or this architecture is not known here.
pub(super) fn restrict(domains: &[i32]) -> anyhow::Result<bool> {
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else {
        return Ok(false);
    };
    let denied = without_x32(compile(denied(domains)?, libc::EPERM, arch)?);
    // The C library takes this for a kernel that has no `clone3`, and takes `clone`.
    let unknown = compile(
        BTreeMap::from([(libc::SYS_clone3, vec![])]),
        libc::ENOSYS,
        arch,
    )?;
    for program in [unknown, denied] {
        match seccompiler::apply_filter(&program) {
            Ok(()) => {}
            Err(seccompiler::Error::Seccomp(error) | seccompiler::Error::Prctl(error))
                if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) =>
            {
                return Ok(false);
            }
            Err(error) => return Err(error).context("cannot filter system calls"),
        }
    }
    Ok(true)
}

fn denied(domains: &[i32]) -> anyhow::Result<Rules> {
    let lists = [
        PROCESSES,
        PRIVILEGES,
        MOUNTS,
        CHANGES,
        NEW_CHANGES,
        SURFACE,
        OLD,
    ];
    let mut rules: Rules = lists
        .into_iter()
        .flatten()
        .map(|number| (*number, vec![]))
        .collect();
    let sockets = if domains.is_empty() {
        vec![]
    } else {
        let others = domains.iter().map(|domain| {
            SeccompCondition::new(0, Dword, SeccompCmpOp::Ne, u64::from(domain.unsigned_abs()))
        });
        vec![SeccompRule::new(others.collect::<Result<_, _>>()?)?]
    };
    rules.insert(libc::SYS_socket, sockets);
    let namespaces = NAMESPACES.into_iter().map(|flag| {
        let flag = u64::from(flag.unsigned_abs());
        let is_set = SeccompCondition::new(0, Qword, SeccompCmpOp::MaskedEq(flag), flag)?;
        SeccompRule::new(vec![is_set])
    });
    rules.insert(libc::SYS_clone, namespaces.collect::<Result<_, _>>()?);
    Ok(rules)
}

/// A program that answers these calls with an error, and lets all others pass.
fn compile(rules: Rules, errno: i32, arch: TargetArch) -> anyhow::Result<BpfProgram> {
    let denied = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, arch)?;
    filter.try_into().context("cannot compile the filter")
}

/// On x86_64 the kernel may know most calls by a second number, with this bit set (x32). The program
/// compares whole numbers, so whatever has the bit is denied before.
fn without_x32(program: BpfProgram) -> BpfProgram {
    const X32_BIT: u32 = 0x4000_0000;
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS; the number of the call is at 0
    const JUMP_IF_GREATER_OR_EQUAL: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const RETURN_EPERM: u32 = 0x0005_0000 | libc::EPERM.unsigned_abs(); // SECCOMP_RET_ERRNO
    if !cfg!(target_arch = "x86_64") {
        return program;
    }
    let instruction = |code, jf, k| sock_filter { code, jt: 0, jf, k };
    let mut first = vec![
        instruction(LOAD, 0, 0),
        instruction(JUMP_IF_GREATER_OR_EQUAL, 1, X32_BIT),
        instruction(RETURN, 0, RETURN_EPERM),
    ];
    first.extend(program);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_compile_and_are_small() {
        let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
        for (network, may_ask) in [(false, false), (true, false), (true, true)] {
            let rules = denied(domains(network, may_ask)).unwrap();
            assert!(rules.len() > 90, "{}", rules.len());
            let program = without_x32(compile(rules, libc::EPERM, arch).unwrap());
            // 4096 is what the kernel takes.
            assert!(program.len() < 1024, "{}", program.len());
        }
    }

    #[test]
    fn who_may_ask_the_keeper_has_no_socket_to_do_it() {
        assert!(domains(true, false).contains(&libc::AF_UNIX));
        assert!(!domains(true, true).contains(&libc::AF_UNIX));
        for may_ask in [false, true] {
            assert!(domains(true, may_ask).contains(&libc::AF_INET));
            assert!(domains(false, may_ask).is_empty());
        }
    }

    #[test]
    fn what_a_worker_needs_is_not_denied() {
        let rules = denied(DOMAINS).unwrap();
        for needed in [
            libc::SYS_read,
            libc::SYS_write,
            libc::SYS_pread64,
            libc::SYS_pwrite64,
            libc::SYS_openat2,
            libc::SYS_lseek,
            libc::SYS_ioctl,
            libc::SYS_tgkill,
            libc::SYS_connect,
            libc::SYS_epoll_pwait,
            libc::SYS_futex,
            libc::SYS_mmap,
            libc::SYS_exit_group,
        ] {
            assert!(!rules.contains_key(&needed), "{needed}");
        }
    }
}
