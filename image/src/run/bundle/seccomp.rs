//! System calls that containers do without.
//!
//! Pure. Most of what Docker's list forbids, a container's missing capabilities forbid already; here is the rest, and what
//! has let containers out before. It is a list of what is forbidden, not of what is allowed, so that programs newer than
//! it go on working.

use serde_json::{Value, json};

/// Calls that reach beyond a container: keys of the kernel, other processes' memory, modules, clocks, tracing.
const FORBIDDEN: [&str; 44] = [
    "acct",
    "add_key",
    "bpf",
    "clock_adjtime",
    "clock_settime",
    "create_module",
    "delete_module",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "get_kernel_syms",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "move_mount",
    "move_pages",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pivot_root",
    "query_module",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "settimeofday",
    "stime",
    "swapoff",
    "swapon",
    "sysfs",
    "uselib",
    "userfaultfd",
    "vm86",
];
/// `CLONE_NEWUSER`: a namespace in which everybody is root widens what of the kernel can be reached.
const NEW_USER_NAMESPACE: u64 = 0x1000_0000;
/// "Operation not permitted", on every Linux.
const NOT_PERMITTED: u32 = 1;
/// "Not implemented": makes libraries use the older call, whose arguments can be looked at.
const NOT_IMPLEMENTED: u32 = 38;

/// The `seccomp` part of a bundle.
pub(super) fn profile() -> Value {
    let with_new_user = json!([{
        "index": 0, "value": NEW_USER_NAMESPACE, "valueTwo": NEW_USER_NAMESPACE, "op": "SCMP_CMP_MASKED_EQ",
    }]);
    let mut profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": &FORBIDDEN[..], "action": "SCMP_ACT_ERRNO", "errnoRet": NOT_PERMITTED},
            {"names": ["clone", "unshare"], "action": "SCMP_ACT_ERRNO", "errnoRet": NOT_PERMITTED, "args": with_new_user},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": NOT_IMPLEMENTED},
        ],
    });
    // A call by another machine's numbers would go past the list.
    profile["architectures"] = match std::env::consts::ARCH {
        "x86_64" => json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
        "aarch64" => json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
        _ => json!([]),
    };
    profile
}
