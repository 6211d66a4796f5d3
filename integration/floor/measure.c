/*
 * measure: run commands and print what they cost, from a process so small that
 * it does not show in their figures.
 *
 * A process inherits the peak memory of the program it was before exec, so the
 * bench, which is larger than some of the runtimes, can't start them itself.
 *
 *   measure [--together] COMMAND [ARG]... [-- COMMAND [ARG]...]...
 *
 * The command `@reap` waits until every orphan of the commands so far, that is
 * the container, has ended. Prints one line:
 *   WALL_NS CPU_US PEAK_KB FAILED STATUS
 * Wall covers all commands; CPU all their descendants, orphans too; PEAK_KB is
 * the largest of the commands and what they themselves waited for; FAILED is
 * the number of the first command that failed (from 1, 0 for none) and STATUS
 * its exit status.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST 64

static char **commands[MOST];
static pid_t pids[MOST];
static int count, failed, failed_status;
static long peak_kb;
static int null_fd;

static long long now_ns(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * 1000000000ll + at.tv_nsec;
}

static pid_t start(char **argv)
{
	pid_t pid = vfork();
	if (!pid) {
		/* Nothing of a command may hold the pipe that our reader waits on. */
		dup2(null_fd, 1);
		execvp(argv[0], argv);
		_exit(127);
	}
	return pid;
}

/* Waits for one child; an orphan's figures don't count as the runtime's. */
static pid_t reap(void)
{
	struct rusage usage;
	int status;
	pid_t pid = wait4(-1, &status, 0, &usage);
	if (pid <= 0)
		return pid;
	for (int c = 0; c < count; c++) {
		if (pids[c] != pid)
			continue;
		if (usage.ru_maxrss > peak_kb)
			peak_kb = usage.ru_maxrss;
		if (status && !failed) {
			failed = c + 1;
			failed_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		}
		pids[c] = 0;
	}
	return pid;
}

int main(int argc, char **argv)
{
	int at = 1, together = argc > 1 && !strcmp(argv[1], "--together");
	struct rusage all;

	at += together;
	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (at >= argc || null_fd < 0)
		return 2;
	commands[count++] = argv + at;
	for (; at < argc; at++)
		if (!strcmp(argv[at], "--")) {
			argv[at] = NULL;
			if (count == MOST)
				return 2;
			commands[count++] = argv + at + 1;
		}
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	long long start_ns = now_ns();
	for (int c = 0; c < count && !failed; c++) {
		if (!strcmp(commands[c][0], "@reap")) {
			while (reap() > 0 || errno == EINTR)
				;
			continue;
		}
		pids[c] = start(commands[c]);
		while (!together && pids[c])
			reap();
	}
	for (int c = 0; c < count; c++)
		while (pids[c] > 0)
			reap();
	long long wall_ns = now_ns() - start_ns;
	if (failed) {
		/* What is left belongs to a failed run; the bench removes it. */
		printf("%lld 0 0 %d %d\n", wall_ns, failed, failed_status);
		return 0;
	}
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	getrusage(RUSAGE_CHILDREN, &all);
	printf("%lld %lld %ld 0 0\n", wall_ns,
	       (all.ru_utime.tv_sec + all.ru_stime.tv_sec) * 1000000ll + all.ru_utime.tv_usec +
		       all.ru_stime.tv_usec,
	       peak_kb);
	return 0;
}
