#include <sys/io.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

/// The first process of the emulated machine: runs /gristmill_tests on the tests that GRISTMILL_TEST_FILTER
/// names, reports how it ended, and switches the machine off. Its environment is what the kernel command line
/// holds.
namespace {

void mount_kernel_files(const char* type, const char* where) {
  mkdir(where, 0755);
  if (mount(type, where, type, 0, nullptr) != 0) std::perror(where);
}

int run_tests() {
  const pid_t child = fork();
  if (child == 0) {
    const char* filter = std::getenv("GRISTMILL_TEST_FILTER");
    execl("/gristmill_tests", "gristmill_tests", filter == nullptr ? "" : filter, nullptr);
    std::perror("/gristmill_tests");
    _exit(127);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) std::perror("gristmill_tests");
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/// Bochs ends when this word is written to this port.
void switch_off() {
  constexpr unsigned short kPort = 0x8900;
  if (ioperm(kPort, 1, 1) != 0) std::perror("ioperm");
  for (const char* letter = "Shutdown"; *letter != '\0'; ++letter)
    outb(static_cast<unsigned char>(*letter), kPort);
}

}  // namespace

int main() {
  mount_kernel_files("proc", "/proc");
  mount_kernel_files("sysfs", "/sys");
  std::printf("exit status %d\n", run_tests());
  std::fflush(stdout);
  tcdrain(STDOUT_FILENO);
  switch_off();
  for (;;) pause();
}
