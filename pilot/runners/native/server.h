// Calls functions of one shared object for the pilot at the other end of a socket, one after the
// other. Frames are those of frame.h:
//
//     from the pilot  {"op": "run", "function", "cwd", "env"} + arguments
//     to the pilot    {"op": "note", "done", "total", "text"} while it runs
//                     {"op": "done", "started_ms", "ended_ms"} + value, or without one and with
//                     "type", "message", "module" and perhaps "environment": it could not be loaded
#pragma once

#include <string>

namespace farcall::pilot {

// Until the socket is closed; the exit code. `name`: the shared object's, for messages.
int serve_functions(int fd, const std::string& path, const std::string& name);

}  // namespace farcall::pilot
