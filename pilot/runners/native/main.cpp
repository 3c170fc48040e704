// farcall-native-runner: started by the pilot (pilot/runners/native_runner), one per shared object
// and slot, so that a crash of a function costs no more than it.
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>

#include "pilot/runners/process.h"
#include "server.h"

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "farcall-native-runner SOCKET LIBRARY NAME: started by farcall-pilot\n";
    return 64;
  }
  // Children that lose their parent stay with us, so that they can be ended; when a node runs out
  // of memory this goes before the pilot does.
  farcall::pilot::become_subreaper();
  if (const int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC); fd >= 0) {
    [[maybe_unused]] auto ignored = write(fd, "500", 3);
    close(fd);
  }
  const int fd = std::atoi(argv[1]);
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  return farcall::pilot::serve_functions(fd, argv[2], argv[3]);
}
