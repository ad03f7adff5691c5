/* The floor: the bare kernel work of a workspace with the same walls, and nothing else.
 *
 * No server, no record, no image store, no limits, no clean-up after a crash: this is what a
 * program that does the rest can come near to and not below.
 *
 *   floor spawn COUNT                  plain posix_spawn of /bin/echo
 *   floor create COUNT LOWER SCRATCH   clone3 with eight namespaces, overlay on LOWER, pivot_root,
 *                                      /proc /dev /tmp, loopback, capabilities, seccomp, Landlock,
 *                                      exec of /bin/echo
 *   floor burst COUNT LOWER SCRATCH    the same COUNT times, all begun at one moment
 *   floor rate STREAMS SECONDS LOWER SCRATCH   the same, back to back: prints how many a second
 *   floor hold LOWER SCRATCH           one such sandbox that sleeps; prints its pid, ends with stdin
 *   floor enter COUNT PID              setns into it, fork, exec of /bin/true
 *
 * `spawn`, `create`, `burst` and `enter` print one line a run: nanoseconds to the first byte of
 * output and nanoseconds to the end of the process. `enter` has no output, and prints the end
 * twice. Where runs follow one another (all but `burst` and `rate`), there is a pause of
 * 20 ms between two, as everybody else in the table has.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Host uids of the sandbox: the range a workspace of the default configuration has. */
#define UID_BASE 0x70000000u
#define UID_COUNT 65536u

static void die(const char *what) {
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    _exit(99);
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void write_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text)) die(path);
    close(fd);
}

/* The system calls that the walls deny. */
static const int denied[] = {
    SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register, SYS_bpf, SYS_userfaultfd,
    SYS_keyctl, SYS_add_key, SYS_request_key, SYS_perf_event_open, SYS_init_module,
    SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_kexec_file_load, SYS_reboot,
    SYS_swapon, SYS_swapoff, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_fsopen, SYS_fsconfig,
    SYS_fsmount, SYS_open_tree, SYS_move_mount, SYS_mount_setattr, SYS_setns, SYS_unshare,
    SYS_acct, SYS_quotactl, SYS_syslog, SYS_settimeofday, SYS_clock_settime, SYS_adjtimex,
    SYS_iopl, SYS_ioperm, SYS_open_by_handle_at, SYS_name_to_handle_at, SYS_fanotify_init,
    SYS_lookup_dcookie, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, SYS_vhangup,
    SYS_personality, SYS_uselib, SYS_ustat, SYS_nfsservctl, SYS_move_pages, SYS_mbind,
    SYS_migrate_pages, SYS_set_mempolicy, SYS_get_mempolicy, SYS_chroot, SYS_modify_ldt,
};
#define DENIED (sizeof denied / sizeof denied[0])

static void filter(void) {
    struct sock_filter code[DENIED + 7];
    size_t n = 0;
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < DENIED; i++)
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)denied[i], (uint8_t)(DENIED - i), 0);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    struct sock_fprog program = {.len = (unsigned short)n, .filter = code};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program)) die("seccomp");
}

static void landlock(void) {
    struct landlock_ruleset_attr attr = {.handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK |
                                                             LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_EXECUTE};
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
    if (ruleset < 0) die("landlock");
    struct landlock_path_beneath_attr rule = {.allowed_access = LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_EXECUTE,
                                              .parent_fd = open("/", O_PATH | O_CLOEXEC)};
    if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0)) die("landlock rule");
    if (syscall(SYS_landlock_restrict_self, ruleset, 0)) die("landlock self");
    close(rule.parent_fd);
    close(ruleset);
}

static void drop_capabilities(void) {
    for (int cap = 0; cap <= CAP_LAST_CAP; cap++) prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0}, {0}};
    if (syscall(SYS_capset, &head, none)) die("capset");
}

static void device(const char *name) {
    char from[64], to[64];
    snprintf(from, sizeof from, "/dev/%s", name);
    snprintf(to, sizeof to, "dev/%s", name);
    int fd = open(to, O_CREAT | O_WRONLY | O_CLOEXEC, 0666);
    if (fd < 0) die(to);
    close(fd);
    if (mount(from, to, NULL, MS_BIND, NULL)) die(from);
}

/* Inside: from a bare clone to the program. */
static void walls(const char *lower, const char *dir, int go, int out, char *const argv[]) {
    char byte, options[4096], merged[1024];
    if (read(go, &byte, 1) != 1) _exit(98);
    if (setresgid(0, 0, 0) || setresuid(0, 0, 0)) die("root inside");
    if (mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL)) die("private");
    snprintf(merged, sizeof merged, "%s/merged", dir);
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s/upper,workdir=%s/work,userxattr", lower, dir, dir);
    if (mount("overlay", merged, "overlay", MS_NOSUID | MS_NODEV, options)) die("overlay");
    if (chdir(merged)) die("chdir");
    if (mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL)) die("proc");
    if (mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=64k")) die("dev");
    const char *names[] = {"null", "zero", "full", "random", "urandom", "tty"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) device(names[i]);
    if (mkdir("dev/pts", 0755) || mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")) die("devpts");
    if (mkdir("dev/shm", 01777) || mount("tmpfs", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=64m")) die("shm");
    if (mount("tmpfs", "tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")) die("tmp");
    if (syscall(SYS_pivot_root, ".", ".")) die("pivot_root");
    if (umount2(".", MNT_DETACH) || chdir("/")) die("old root");
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq up = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    if (s < 0 || ioctl(s, SIOCSIFFLAGS, &up)) die("lo");
    close(s);
    if (sethostname("floor", 5)) die("hostname");
    drop_capabilities();
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) die("no_new_privs");
    landlock();
    filter();
    if (out >= 0) dup2(out, 1);
    char *const env[] = {"PATH=/usr/bin:/bin", NULL};
    execve(argv[0], argv, env);
    die("exec");
}

static pid_t sandbox(const char *lower, const char *dir, int out, char *const argv[]) {
    int go[2];
    char path[1024];
    const char *parts[] = {"upper", "work", "merged"};
    if (mkdir(dir, 0711)) die(dir);
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, parts[i]);
        if (mkdir(path, 0755) || chown(path, UID_BASE, UID_BASE)) die(path);
    }
    if (pipe2(go, O_CLOEXEC)) die("pipe");
    struct clone_args args = {.flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC |
                                       CLONE_NEWUTS | CLONE_NEWCGROUP | CLONE_NEWTIME,
                              .exit_signal = SIGCHLD};
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0) die("clone3");
    if (pid == 0) {
        close(go[1]);
        walls(lower, dir, go[0], out, argv);
    }
    close(go[0]);
    snprintf(path, sizeof path, "/proc/%d/uid_map", pid);
    char map[64];
    snprintf(map, sizeof map, "0 %u %u", UID_BASE, UID_COUNT);
    write_file(path, map);
    snprintf(path, sizeof path, "/proc/%d/gid_map", pid);
    write_file(path, map);
    if (write(go[1], "g", 1) != 1) die("go");
    close(go[1]);
    return pid;
}

static int forget(const char *path, const struct stat *s, int kind, struct FTW *w) {
    (void)s, (void)kind, (void)w;
    return remove(path);
}

static void clear(const char *dir) { nftw(dir, forget, 16, FTW_DEPTH | FTW_PHYS); }

static char *const ECHO[] = {"/bin/echo", "ok", NULL};

/* Times one run; the sandbox's directory is removed afterwards, outside the measurement. */
static void one(const char *lower, const char *dir, int plain, int64_t *first, int64_t *end) {
    int out[2], status;
    char buffer[16];
    pid_t pid;
    if (pipe2(out, O_CLOEXEC)) die("pipe");
    int64_t began = now();
    if (plain) {
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, out[1], 1);
        if (posix_spawn(&pid, ECHO[0], &actions, NULL, ECHO, NULL)) die("spawn");
        posix_spawn_file_actions_destroy(&actions);
    } else {
        pid = sandbox(lower, dir, out[1], ECHO);
    }
    close(out[1]);
    if (read(out[0], buffer, sizeof buffer) <= 0) die("no output");
    *first = now() - began;
    if (waitpid(pid, &status, 0) != pid || status) die("the program failed");
    *end = now() - began;
    close(out[0]);
    if (!plain) clear(dir);
}

/* What timer.rs calls PAUSE. */
static void pause_between(void) { usleep(20000); }

static void burst(int count, const char *lower, const char *scratch) {
    int go[2], times[2];
    if (pipe(go) || pipe(times)) die("pipe");
    for (int i = 0; i < count; i++) {
        if (fork() == 0) {
            char byte, dir[1024];
            int64_t pair[2];
            close(go[1]);
            snprintf(dir, sizeof dir, "%s/b%d", scratch, i);
            if (read(go[0], &byte, 1) != 0) die("go");
            one(lower, dir, 0, &pair[0], &pair[1]);
            if (write(times[1], pair, sizeof pair) != sizeof pair) die("times");
            _exit(0);
        }
    }
    usleep(100000);
    close(go[1]);
    for (int i = 0; i < count; i++) {
        int64_t pair[2];
        if (read(times[0], pair, sizeof pair) != sizeof pair) die("times");
        printf("%ld %ld\n", (long)pair[0], (long)pair[1]);
    }
    while (wait(NULL) > 0) {}
}

static void rate(int streams, int seconds, const char *lower, const char *scratch) {
    int counts[2];
    if (pipe(counts)) die("pipe");
    int64_t until = now() + (int64_t)seconds * 1000000000;
    for (int stream = 0; stream < streams; stream++) {
        if (fork() == 0) {
            long done = 0;
            char dir[1024];
            int64_t first, end;
            for (; now() < until; done++) {
                snprintf(dir, sizeof dir, "%s/s%d-%ld", scratch, stream, done);
                one(lower, dir, 0, &first, &end);
            }
            if (write(counts[1], &done, sizeof done) != sizeof done) die("count");
            _exit(0);
        }
    }
    long sum = 0, done;
    for (int stream = 0; stream < streams; stream++) {
        if (read(counts[0], &done, sizeof done) != sizeof done) die("count");
        sum += done;
    }
    while (wait(NULL) > 0) {}
    printf("%.1f\n", (double)sum / seconds);
}

static void enter(int count, pid_t target) {
    int pidfd = (int)syscall(SYS_pidfd_open, target, 0);
    if (pidfd < 0) die("pidfd");
    for (int i = 0; i < count; i++) {
        int status;
        pause_between();
        int64_t began = now();
        pid_t pid = fork();
        if (pid == 0) {
            int flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
            if (setns(pidfd, flags)) die("setns");
            pid_t inner = fork();
            if (inner == 0) {
                execl("/bin/true", "true", NULL);
                die("exec");
            }
            if (waitpid(inner, &status, 0) != inner) die("wait");
            _exit(WEXITSTATUS(status));
        }
        if (waitpid(pid, &status, 0) != pid || status) die("the program failed");
        int64_t took = now() - began;
        printf("%ld %ld\n", (long)took, (long)took);
    }
}

int main(int argc, char **argv) {
    const char *word = argc > 1 ? argv[1] : "";
    int64_t first, end;
    char dir[1024];
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!strcmp(word, "spawn") && argc == 3) {
        for (int i = 0; i < atoi(argv[2]); i++) {
            pause_between();
            one(NULL, NULL, 1, &first, &end);
            printf("%ld %ld\n", (long)first, (long)end);
        }
    } else if (!strcmp(word, "create") && argc == 5) {
        for (int i = 0; i < atoi(argv[2]); i++) {
            pause_between();
            snprintf(dir, sizeof dir, "%s/c%d", argv[4], i);
            one(argv[3], dir, 0, &first, &end);
            printf("%ld %ld\n", (long)first, (long)end);
        }
    } else if (!strcmp(word, "burst") && argc == 5) {
        burst(atoi(argv[2]), argv[3], argv[4]);
    } else if (!strcmp(word, "rate") && argc == 6) {
        rate(atoi(argv[2]), atoi(argv[3]), argv[4], argv[5]);
    } else if (!strcmp(word, "hold") && argc == 4) {
        char *const sleep_long[] = {"/bin/sleep", "3600", NULL};
        char byte;
        snprintf(dir, sizeof dir, "%s/hold", argv[3]);
        pid_t pid = sandbox(argv[2], dir, -1, sleep_long);
        printf("%d\n", pid);
        while (read(0, &byte, 1) > 0) {}
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        clear(dir);
    } else if (!strcmp(word, "enter") && argc == 4) {
        enter(atoi(argv[2]), (pid_t)atoi(argv[3]));
    } else {
        fprintf(stderr, "floor: spawn COUNT | create COUNT LOWER SCRATCH | burst COUNT LOWER SCRATCH | rate STREAMS SECONDS LOWER SCRATCH | hold LOWER SCRATCH | enter COUNT PID\n");
        return 2;
    }
    return 0;
}
