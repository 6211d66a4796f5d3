/*
 * floor: what the kernel itself charges for one container.
 *
 * Runs a command in a root file system with the isolation that runc's default
 * config.json asks for, in as few system calls, waits for it and cleans up.
 * It reads no JSON, keeps no state and serves no other purpose than to be the
 * lower bound that `make bench` reports a runtime's time against. It checks
 * every call and stops at the first failure, since a floor that silently does
 * less is no floor.
 *
 *   floor [switch]... ROOTFS ID COMMAND [ARG]...
 *
 * Switches choose between kernel interfaces that lead to the same container,
 * so that the fastest can be found; the defaults are the fastest known.
 *   --mounts=path|fd      mount(2), or fsopen/fsmount/move_mount
 *   --attach=tasks|procs  how the child joins its cgroups
 *   --cgroupfs=bind|new   /sys/fs/cgroup from binds, or fresh v1 mounts
 *   --clone=split|all     all but the pid namespace by unshare in the child, while
 *                         the parent makes cgroups, or all of them in clone3
 *   --place=other|kernel  put the child on another CPU at once, or leave it to the
 *                         scheduler, which lets it wait until the parent sleeps
 *   --host-net --no-cgroup --no-keyring    leave a part out, to price it
 *   --trace               print each call's cost in microseconds to stderr
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- the calls that not every C library wraps, or wraps under clashing headers ---- */

static long mount(const char *source, const char *target, const char *type, unsigned long flags,
		  const void *data)
{
	return syscall(SYS_mount, source, target, type, flags, data);
}
static long fsopen(const char *type)
{
	return syscall(SYS_fsopen, type, FSOPEN_CLOEXEC);
}
static long fsconfig(int context, unsigned command, const char *key, const char *value)
{
	return syscall(SYS_fsconfig, context, command, key, value, 0);
}
static long fsmount(int context, unsigned attributes)
{
	return syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes);
}
static long open_tree(const char *path, unsigned flags)
{
	return syscall(SYS_open_tree, AT_FDCWD, path, flags);
}
static long move_mount(int tree, const char *target)
{
	return syscall(SYS_move_mount, tree, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH);
}
static long mount_setattr(int dir, const char *path, unsigned flags, struct mount_attr *attributes)
{
	return syscall(SYS_mount_setattr, dir, path, flags, attributes, sizeof *attributes);
}

/* ---- tracing: one record a call, shared by parent and child ---- */

struct record {
	const char *call;
	const char *subject;
	uint64_t start_ns, end_ns;
	int child;
};
struct trace {
	unsigned used;
	struct record records[1024];
};
static struct trace *trace;
static int in_child;
static pid_t child_pid;

static uint64_t now_ns(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * 1000000000ull + at.tv_nsec;
}

static void die(const char *call, const char *subject)
{
	dprintf(2, "floor: %s %s: %s\n", call, subject, strerror(errno));
	if (child_pid)
		kill(child_pid, SIGKILL); /* it would wait for us for ever */
	_exit(125);
}

static void note(const char *call, const char *subject, uint64_t start_ns)
{
	unsigned at = __atomic_fetch_add(&trace->used, 1, __ATOMIC_RELAXED);
	if (at < sizeof trace->records / sizeof *trace->records)
		trace->records[at] =
			(struct record){ call, subject, start_ns, now_ns(), in_child };
}

#define TRY(call, subject, ...)                                       \
	({                                                            \
		uint64_t start_ns_ = trace ? now_ns() : 0;            \
		long result_ = (__VA_ARGS__);                         \
		if (result_ < 0)                                      \
			die(call, subject);                           \
		if (trace)                                            \
			note(call, subject, start_ns_);               \
		result_;                                              \
	})

static int by_start(const void *a, const void *b)
{
	const struct record *x = a, *y = b;
	return x->start_ns < y->start_ns ? -1 : x->start_ns > y->start_ns;
}

static void print_trace(uint64_t origin_ns)
{
	qsort(trace->records, trace->used, sizeof *trace->records, by_start);
	for (unsigned i = 0; i < trace->used; i++) {
		struct record *r = &trace->records[i];
		dprintf(2, "%8.1f %8.1f  %s %-14s %s\n", (r->start_ns - origin_ns) / 1e3,
			(r->end_ns - r->start_ns) / 1e3, r->child ? "child " : "parent",
			r->call, r->subject);
	}
}

/* ---- switches ---- */

static struct {
	int mounts_by_fd, attach_procs, new_cgroupfs, split, host_net, no_cgroup, no_keyring;
	int place;
} use = { .split = 1, .place = 1 };

/* ---- cgroups, v1 ---- */

struct hierarchy {
	char name[32];       /* directory below /sys/fs/cgroup */
	char controllers[64];
	char own[512];       /* our own cgroup in it, absolute */
	char path[640];      /* the container's, absolute */
	int attach_fd;
};
/* Shared: the parent opens attach_fd after the child was cloned. */
static struct hierarchy *hierarchies;
static int hierarchy_count;

static void *shared_memory(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (memory == MAP_FAILED)
		die("mmap", "shared memory");
	return memory;
}

static void find_hierarchies(const char *id)
{
	static char text[8192];
	hierarchies = shared_memory(16 * sizeof *hierarchies);
	int fd = TRY("open", "/proc/self/cgroup", open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC));
	long length = TRY("read", "/proc/self/cgroup", read(fd, text, sizeof text - 1));
	close(fd);
	text[length] = 0;
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		char *names = strchr(line, ':');
		char *own = names ? strchr(names + 1, ':') : NULL;
		if (!own || own == names + 1 || hierarchy_count == 16)
			continue; /* the v2 line names no controllers */
		*own++ = 0;
		names++;
		struct hierarchy *h = &hierarchies[hierarchy_count++];
		const char *name = strncmp(names, "name=", 5) ? names : names + 5;
		snprintf(h->name, sizeof h->name, "%s", name);
		snprintf(h->controllers, sizeof h->controllers, "%s", names);
		snprintf(h->own, sizeof h->own, "/sys/fs/cgroup/%s%s", name, own);
		snprintf(h->path, sizeof h->path, "/sys/fs/cgroup/%s%s/%s", name,
			 strcmp(own, "/") ? own : "", id);
	}
}

static void write_at(int dir, const char *file, const char *text)
{
	int fd = TRY("openat", file, openat(dir, file, O_WRONLY | O_CLOEXEC));
	TRY("write", file, write(fd, text, strlen(text)));
	close(fd);
}

static void copy_at(const char *from_dir, int to_dir, const char *file)
{
	char path[700], text[256];
	snprintf(path, sizeof path, "%s/%s", from_dir, file);
	int fd = TRY("open", file, open(path, O_RDONLY | O_CLOEXEC));
	long length = TRY("read", file, read(fd, text, sizeof text - 1));
	close(fd);
	text[length] = 0;
	write_at(to_dir, file, text);
}

static const char *const device_rules[] = {
	"c *:* m", "b *:* m", "c 1:3 rwm", "c 1:8 rwm", "c 1:7 rwm",
	"c 5:0 rwm", "c 1:5 rwm", "c 1:9 rwm", "c 5:1 rwm", "c 136:* rwm", "c 5:2 rwm",
};

static void make_cgroups(void)
{
	for (int i = 0; i < hierarchy_count; i++) {
		struct hierarchy *h = &hierarchies[i];
		TRY("mkdir", h->path, mkdir(h->path, 0755));
		int dir = TRY("open", h->path, open(h->path, O_PATH | O_DIRECTORY | O_CLOEXEC));
		if (!strcmp(h->name, "cpuset")) {
			copy_at(h->own, dir, "cpuset.cpus");
			copy_at(h->own, dir, "cpuset.mems");
		} else if (!strcmp(h->name, "devices")) {
			write_at(dir, "devices.deny", "a");
			int allow = TRY("openat", "devices.allow",
					openat(dir, "devices.allow", O_WRONLY | O_CLOEXEC));
			for (unsigned r = 0; r < sizeof device_rules / sizeof *device_rules; r++)
				TRY("write", "devices.allow",
				    write(allow, device_rules[r], strlen(device_rules[r])));
			close(allow);
		}
		const char *file = use.attach_procs ? "cgroup.procs" : "tasks";
		h->attach_fd = TRY("openat", file, openat(dir, file, O_WRONLY | O_CLOEXEC));
		close(dir);
	}
}

static void remove_cgroups(void)
{
	for (int i = 0; i < hierarchy_count; i++)
		TRY("rmdir", hierarchies[i].path, rmdir(hierarchies[i].path));
}

/* ---- the child's mounts ---- */

static void mount_path(const char *type, const char *target, unsigned long flags, const char *data)
{
	TRY("mount", target, mount(type, target, type, flags, data));
}

static void mount_fd(const char *type, const char *target, unsigned attributes, const char *data)
{
	char copy[128];
	int context = TRY("fsopen", type, fsopen(type));
	snprintf(copy, sizeof copy, "%s", data ? data : "");
	for (char *rest = copy, *item; (item = strsep(&rest, ","));) {
		char *value = strchr(item, '=');
		if (value)
			*value++ = 0;
		if (*item)
			TRY("fsconfig", item,
			    fsconfig(context, value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG,
				     item, value));
	}
	TRY("fsconfig", type, fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL));
	int mounted = TRY("fsmount", type, fsmount(context, attributes));
	TRY("move_mount", target, move_mount(mounted, target));
	close(context);
	close(mounted);
}

static void mount_new(const char *type, const char *target, unsigned long flags, const char *data)
{
	unsigned attributes = 0;
	if (!use.mounts_by_fd) {
		mount_path(type, target, flags, data);
		return;
	}
	if (flags & MS_NOSUID)
		attributes |= MOUNT_ATTR_NOSUID;
	if (flags & MS_NODEV)
		attributes |= MOUNT_ATTR_NODEV;
	if (flags & MS_NOEXEC)
		attributes |= MOUNT_ATTR_NOEXEC;
	if (flags & MS_RDONLY)
		attributes |= MOUNT_ATTR_RDONLY;
	if (flags & MS_STRICTATIME)
		attributes |= MOUNT_ATTR_STRICTATIME;
	mount_fd(type, target, attributes, data);
}

static void bind_mount(const char *source, const char *target, int recursive, unsigned long flags)
{
	if (!use.mounts_by_fd) {
		TRY("mount-bind", target,
		    mount(source, target, NULL, MS_BIND | (recursive ? MS_REC : 0), NULL));
		if (flags)
			TRY("mount-remount", target,
			    mount(NULL, target, NULL, MS_REMOUNT | MS_BIND | flags, NULL));
		return;
	}
	int tree = TRY("open_tree", source,
		       open_tree(source,
				 OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (recursive ? AT_RECURSIVE : 0)));
	if (flags) {
		struct mount_attr attributes = { 0 };
		if (flags & MS_RDONLY)
			attributes.attr_set |= MOUNT_ATTR_RDONLY;
		if (flags & MS_NOSUID)
			attributes.attr_set |= MOUNT_ATTR_NOSUID;
		if (flags & MS_NODEV)
			attributes.attr_set |= MOUNT_ATTR_NODEV;
		if (flags & MS_NOEXEC)
			attributes.attr_set |= MOUNT_ATTR_NOEXEC;
		TRY("mount_setattr", target,
		    mount_setattr(tree, "", AT_EMPTY_PATH, &attributes));
	}
	TRY("move_mount", target, move_mount(tree, target));
	close(tree);
}

static void mount_cgroup(void)
{
	unsigned long flags = MS_NOSUID | MS_NOEXEC | MS_NODEV;
	mount_new("tmpfs", "sys/fs/cgroup", flags, "mode=755");
	for (int i = 0; i < hierarchy_count; i++) {
		struct hierarchy *h = &hierarchies[i];
		char target[80];
		snprintf(target, sizeof target, "sys/fs/cgroup/%s", h->name);
		TRY("mkdir", target, mkdir(target, 0755));
		if (use.new_cgroupfs) {
			if (!strncmp(h->controllers, "name=", 5)) {
				char data[80];
				snprintf(data, sizeof data, "none,%s", h->controllers);
				TRY("mount", target,
				    mount("cgroup", target, "cgroup", flags | MS_RDONLY, data));
			} else {
				TRY("mount", target,
				    mount("cgroup", target, "cgroup", flags | MS_RDONLY,
					  h->controllers));
			}
		} else {
			bind_mount(h->path, target, 0, flags | MS_RDONLY);
		}
	}
	if (use.mounts_by_fd) {
		struct mount_attr attributes = { .attr_set = MOUNT_ATTR_RDONLY };
		TRY("mount_setattr", "sys/fs/cgroup",
		    mount_setattr(AT_FDCWD, "sys/fs/cgroup", 0, &attributes));
	} else {
		TRY("mount-remount", "sys/fs/cgroup",
		    mount(NULL, "sys/fs/cgroup", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | flags,
			  NULL));
	}
}

static const struct {
	const char *path;
	mode_t type;
	unsigned major, minor;
} devices[] = {
	{ "dev/null", S_IFCHR, 1, 3 },	  { "dev/random", S_IFCHR, 1, 8 },
	{ "dev/full", S_IFCHR, 1, 7 },	  { "dev/tty", S_IFCHR, 5, 0 },
	{ "dev/zero", S_IFCHR, 1, 5 },	  { "dev/urandom", S_IFCHR, 1, 9 },
};
static const char *const links[][2] = {
	{ "pts/ptmx", "dev/ptmx" },	     { "/proc/self/fd", "dev/fd" },
	{ "/proc/self/fd/0", "dev/stdin" },  { "/proc/self/fd/1", "dev/stdout" },
	{ "/proc/self/fd/2", "dev/stderr" }, { "/proc/kcore", "dev/core" },
};
static const char *const masked[] = {
	"proc/acpi", "proc/asound", "proc/kcore", "proc/keys", "proc/latency_stats",
	"proc/timer_list", "proc/timer_stats", "proc/sched_debug", "sys/firmware", "proc/scsi",
};
static const char *const readonly[] = {
	"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger",
};

static void mask_paths(void)
{
	for (unsigned i = 0; i < sizeof readonly / sizeof *readonly; i++)
		if (!access(readonly[i], F_OK))
			bind_mount(readonly[i], readonly[i], 1,
			     MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC);
	for (unsigned i = 0; i < sizeof masked / sizeof *masked; i++) {
		struct stat found;
		if (stat(masked[i], &found)) {
			if (errno != ENOENT)
				die("stat", masked[i]);
		} else if (S_ISDIR(found.st_mode)) {
			mount_new("tmpfs", masked[i], MS_RDONLY, "nr_blocks=1,nr_inodes=1");
		} else {
			bind_mount("dev/null", masked[i], 0, 0);
		}
	}
}

static void build_root(const char *rootfs)
{
	if (use.mounts_by_fd) {
		struct mount_attr private = { .propagation = MS_PRIVATE };
		TRY("mount_setattr", "/ private",
		    mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, &private));
	} else {
		TRY("mount", "/ private", mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	}
	bind_mount(rootfs, rootfs, 1, 0);
	TRY("chdir", rootfs, chdir(rootfs));
	mount_new("proc", "proc", 0, NULL);
	mount_new("tmpfs", "dev", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
	TRY("mkdir", "dev/pts", mkdir("dev/pts", 0755));
	TRY("mkdir", "dev/shm", mkdir("dev/shm", 0755));
	TRY("mkdir", "dev/mqueue", mkdir("dev/mqueue", 0755));
	for (unsigned i = 0; i < sizeof devices / sizeof *devices; i++)
		TRY("mknod", devices[i].path,
		    mknod(devices[i].path, devices[i].type | 0666,
			  makedev(devices[i].major, devices[i].minor)));
	for (unsigned i = 0; i < sizeof links / sizeof *links; i++)
		TRY("symlink", links[i][1], symlink(links[i][0], links[i][1]));
	mount_new("devpts", "dev/pts", MS_NOSUID | MS_NOEXEC,
		  use.mounts_by_fd ? "ptmxmode=0666,mode=0620,gid=5" :
				     "newinstance,ptmxmode=0666,mode=0620,gid=5");
	mount_new("tmpfs", "dev/shm", MS_NOSUID | MS_NOEXEC | MS_NODEV, "mode=1777,size=65536k");
	mount_new("mqueue", "dev/mqueue", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL);
	mount_new("sysfs", "sys", MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RDONLY, NULL);
}

static void enter_root(void)
{
	TRY("pivot_root", ".", syscall(SYS_pivot_root, ".", "."));
	TRY("umount2", "old root", syscall(SYS_umount2, ".", 2 /* MNT_DETACH */));
	TRY("chdir", "/", chdir("/"));
}

/* ---- the child's identity ---- */

static void loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd = TRY("socket", "AF_INET", socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	TRY("ioctl", "lo up", ioctl(fd, SIOCSIFFLAGS, &request));
	close(fd);
}

static void confine(void)
{
	const uint32_t keep =
		1u << CAP_AUDIT_WRITE | 1u << CAP_KILL | 1u << CAP_NET_BIND_SERVICE;
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct sets[2] = { { keep, keep, 0 }, { 0, 0, 0 } };
	struct rlimit files = { 1024, 1024 };
	/* A list of calls that the command never makes, as long as a small profile. */
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_kexec_load, 5, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_add_key, 4, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_bpf, 3, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_init_module, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ptrace, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
	};
	struct sock_fprog program = { sizeof filter / sizeof *filter, filter };

	TRY("setsid", "", setsid());
	if (!use.no_keyring)
		TRY("keyctl", "join session", syscall(SYS_keyctl, 1, "_floor"));
	TRY("sethostname", "", sethostname("runc", 4));
	TRY("prlimit", "nofile", setrlimit(RLIMIT_NOFILE, &files));
	for (int c = 0; c <= 63; c++)
		if (c > 31 || !(keep & 1u << c))
			if (prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0)
				break; /* past the kernel's last capability */
	TRY("setgroups", "", syscall(SYS_setgroups, 0, NULL));
	TRY("setresgid", "", syscall(SYS_setresgid, 0, 0, 0));
	TRY("setresuid", "", syscall(SYS_setresuid, 0, 0, 0));
	TRY("close_range", "", syscall(SYS_close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC));
	TRY("capset", "", syscall(SYS_capset, &header, sets));
	TRY("prctl", "no_new_privs", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	TRY("seccomp", "", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
}

/* ---- one container ---- */

#define ALL_NAMESPACES (CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS)

static void child(const char *rootfs, char **argv, int ready_fd)
{
	static char *const environment[] = {
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"TERM=xterm", NULL,
	};
	char byte;
	in_child = 1;
	if (use.place) {
		/* The container may use every CPU, not only the one it was sent to. */
		cpu_set_t all;
		memset(&all, 0xff, sizeof all);
		TRY("sched_setaff", "any", sched_setaffinity(0, sizeof all, &all));
	}
	if (use.split)
		TRY("unshare", "mnt,ipc,uts,net",
		    unshare(ALL_NAMESPACES | (use.host_net ? 0 : CLONE_NEWNET)));
	build_root(rootfs);
	if (!use.host_net)
		loopback_up();
	mask_paths();
	if (!use.no_cgroup) {
		TRY("read", "cgroups are made", read(ready_fd, &byte, 1));
		for (int i = 0; i < hierarchy_count; i++)
			TRY("attach", hierarchies[i].name, write(hierarchies[i].attach_fd, "0", 1));
		TRY("unshare", "cgroup", unshare(CLONE_NEWCGROUP));
		mount_cgroup();
	}
	enter_root();
	if (use.mounts_by_fd) {
		struct mount_attr attributes = { .attr_set = MOUNT_ATTR_RDONLY };
		TRY("mount_setattr", "/ read-only",
		    mount_setattr(AT_FDCWD, "/", 0, &attributes));
	} else {
		TRY("mount-remount", "/ read-only",
		    mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
	}
	confine();
	if (trace)
		note("mark", "execve", now_ns());
	execve(argv[0], argv, environment);
	die("execve", argv[0]);
}

static int parse(const char *argument)
{
	static const struct {
		const char *text;
		int *flag, value;
	} known[] = {
		{ "--mounts=fd", &use.mounts_by_fd, 1 }, { "--mounts=path", &use.mounts_by_fd, 0 },
		{ "--attach=procs", &use.attach_procs, 1 }, { "--attach=tasks", &use.attach_procs, 0 },
		{ "--cgroupfs=new", &use.new_cgroupfs, 1 }, { "--cgroupfs=bind", &use.new_cgroupfs, 0 },
		{ "--clone=split", &use.split, 1 }, { "--clone=all", &use.split, 0 },
		{ "--host-net", &use.host_net, 1 }, { "--no-cgroup", &use.no_cgroup, 1 },
		{ "--no-keyring", &use.no_keyring, 1 }, { "--place=other", &use.place, 1 }, { "--place=kernel", &use.place, 0 },
	};
	if (!strcmp(argument, "--trace")) {
		trace = shared_memory(sizeof *trace);
		return 1;
	}
	for (unsigned i = 0; i < sizeof known / sizeof *known; i++)
		if (!strcmp(argument, known[i].text))
			return *known[i].flag = known[i].value, 1;
	return 0;
}

/*
 * A new process is queued behind its parent and waits for it to sleep, or for
 * the balancer's tick, while another CPU idles. A changed affinity moves it now.
 */
static void move_to_another_cpu(pid_t pid)
{
	cpu_set_t allowed, other;
	int here = sched_getcpu();
	CPU_ZERO(&other);
	TRY("sched_getaff", "", sched_getaffinity(0, sizeof allowed, &allowed));
	for (int c = 0; c < CPU_SETSIZE; c++)
		if (c != here && CPU_ISSET(c, &allowed))
			CPU_SET(c, &other);
	if (CPU_COUNT(&other))
		TRY("sched_setaff", "elsewhere", sched_setaffinity(pid, sizeof other, &other));
}

int main(int argc, char **argv)
{
	int at = 1, ready[2], pidfd, status;
	while (at < argc && parse(argv[at]))
		at++;
	if (argc - at < 3) {
		dprintf(2, "usage: floor [switch]... ROOTFS ID COMMAND [ARG]...\n");
		return 2;
	}
	const char *rootfs = argv[at], *id = argv[at + 1];
	uint64_t origin_ns = now_ns();

	umask(0);
	find_hierarchies(id);
	TRY("pipe2", "", pipe2(ready, O_CLOEXEC));
	struct clone_args arguments = {
		.flags = CLONE_PIDFD | CLONE_FILES | CLONE_NEWPID |
			 (use.split ? 0 : ALL_NAMESPACES | (use.host_net ? 0 : CLONE_NEWNET)),
		.pidfd = (uintptr_t)&pidfd,
		.exit_signal = SIGCHLD,
	};
	long pid = TRY("clone3", "", syscall(SYS_clone3, &arguments, sizeof arguments));
	if (!pid)
		child(rootfs, argv + at + 2, ready[0]);
	child_pid = pid;
	if (use.place)
		move_to_another_cpu(pid);
	if (!use.no_cgroup) {
		make_cgroups();
		TRY("write", "cgroups are made", write(ready[1], "1", 1));
	}
	TRY("wait4", "", wait4(pid, &status, 0, NULL));
	if (!use.no_cgroup)
		remove_cgroups();
	if (trace)
		print_trace(origin_ns);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
