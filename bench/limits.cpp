// What bounds a path on this machine, with nothing of farcall in it:
//
//   farcall-bench-limits echo MESSAGES WINDOW [BYTES]      over TCP with CURVE, WINDOW under way
//   farcall-bench-limits oneway MESSAGES PACKED [BYTES]    the same one way, PACKED in a frame
//   farcall-bench-limits python CALLS WINDOW               a Python child over a socket
// prints JSON: {"per_s": …, "p50_us": …}, the round trip with a WINDOW of 1. BYTES: 256.
#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>
#include <zmq.hpp>

#include "base/keys.h"

namespace {

using Clock = std::chrono::steady_clock;

struct Work {
  std::uint64_t messages = 0, window = 1;
  std::size_t bytes = 256;
};

struct Measured {
  std::chrono::duration<double> took{};
  std::vector<double> round_trips_us;  // with a window of 1
};

// The far end sends each frame back, or (one way) only the last one.
void serve(zmq::context_t& context, const farcall::KeyPair& keys, std::string& address,
           std::uint64_t frames, bool echo, zmq::socket_t& ready) {
  zmq::socket_t socket(context, zmq::socket_type::dealer);
  socket.set(zmq::sockopt::curve_server, true);
  socket.set(zmq::sockopt::curve_publickey, keys.public_key);
  socket.set(zmq::sockopt::curve_secretkey, keys.secret_key);
  socket.bind("tcp://127.0.0.1:*");
  address = socket.get(zmq::sockopt::last_endpoint);
  ready.send(zmq::message_t(), zmq::send_flags::none);
  for (std::uint64_t i = 0; i < frames; ++i) {
    zmq::message_t message;
    if (!socket.recv(message)) return;
    if (echo || i + 1 == frames) socket.send(message, zmq::send_flags::none);
  }
  zmq::message_t last;
  (void)ready.recv(last);  // until the client has everything
}

Measured send_and_receive(zmq::socket_t& socket, const Work& work) {
  const std::string payload(work.bytes, 'x');
  Measured measured;
  const auto start = Clock::now();
  std::uint64_t sent = 0;
  for (std::uint64_t received = 0; received < work.messages; ++received) {
    const auto begin = Clock::now();
    for (; sent < work.messages && sent < received + work.window; ++sent)
      socket.send(zmq::buffer(payload), zmq::send_flags::none);
    zmq::message_t echo;
    (void)socket.recv(echo);
    if (work.window == 1)
      measured.round_trips_us.push_back(
          std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
  }
  measured.took = Clock::now() - start;
  return measured;
}

Measured send_one_way(zmq::socket_t& socket, std::uint64_t frames, std::size_t bytes) {
  const std::string payload(bytes, 'x');
  const auto start = Clock::now();
  for (std::uint64_t i = 0; i < frames; ++i)
    socket.send(zmq::buffer(payload), zmq::send_flags::none);
  zmq::message_t last;
  (void)socket.recv(last);
  return {Clock::now() - start, {}};
}

Measured curve(const Work& work, bool echo) {
  zmq::context_t context;
  zmq::socket_t here(context, zmq::socket_type::pair), there(context, zmq::socket_type::pair);
  here.bind("inproc://ready");
  there.connect("inproc://ready");
  const farcall::KeyPair server = farcall::make_key_pair(), client = farcall::make_key_pair();
  std::string address;
  const std::uint64_t frames = echo ? work.messages : work.messages / work.window;
  std::thread thread([&] { serve(context, server, address, frames, echo, there); });
  zmq::message_t signal;
  (void)here.recv(signal);
  zmq::socket_t socket(context, zmq::socket_type::dealer);
  socket.set(zmq::sockopt::curve_serverkey, server.public_key);
  socket.set(zmq::sockopt::curve_publickey, client.public_key);
  socket.set(zmq::sockopt::curve_secretkey, client.secret_key);
  socket.connect(address);
  Measured measured = echo ? send_and_receive(socket, work)
                           : send_one_way(socket, frames, work.bytes * work.window);
  here.send(zmq::message_t(), zmq::send_flags::none);
  thread.join();
  return measured;
}

// A child that calls a function for each record of 64 bytes and answers with another.
constexpr const char* kChild = R"(
import socket
def nop(record):
    return record
end, rest = socket.socket(fileno=0), b""
while True:
    data = end.recv(1 << 20)
    if not data:
        break
    rest += data
    whole = len(rest) // 64 * 64
    end.sendall(b"".join([nop(rest[at:at + 64]) for at in range(0, whole, 64)]))
    rest = rest[whole:]
)";

Measured python_child(const Work& work) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
  if (fork() == 0) {
    dup2(ends[1], 0);
    execl("/usr/bin/python3", "python3", "-S", "-E", "-c", kChild, nullptr);
    _exit(127);
  }
  close(ends[1]);
  constexpr std::uint64_t kRecord = 64;
  std::vector<char> buffer(work.window * kRecord);
  Measured measured;
  auto start = Clock::now();
  std::uint64_t sent = 0, got_bytes = 0;
  for (bool first = true; got_bytes < work.messages * kRecord; first = false) {
    const auto begin = Clock::now();
    const std::uint64_t room = std::min(work.messages, got_bytes / kRecord + work.window) - sent;
    if (room > 0 &&
        write(ends[0], buffer.data(), room * kRecord) != static_cast<ssize_t>(room * kRecord))
      std::abort();
    sent += room;
    const ssize_t got = read(ends[0], buffer.data(), buffer.size());
    if (got <= 0) std::abort();
    got_bytes += static_cast<std::uint64_t>(got);
    if (first) start = Clock::now();  // it is up
    if (work.window == 1)
      measured.round_trips_us.push_back(
          std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
  }
  measured.took = Clock::now() - start;
  close(ends[0]);
  return measured;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  Work work;
  if (argc > 3) {
    work.messages = std::strtoull(argv[2], nullptr, 10);
    work.window = std::strtoull(argv[3], nullptr, 10);
  }
  if (argc > 4) work.bytes = std::strtoull(argv[4], nullptr, 10);
  if (work.messages < work.window || work.window == 0 ||
      (mode != "echo" && mode != "oneway" && mode != "python")) {
    fmt::print(
        stderr,
        "usage: farcall-bench-limits echo|oneway|python COUNT WINDOW [BYTES], COUNT at least "
        "WINDOW\n");
    return 2;
  }
  Measured measured = mode == "python" ? python_child(work) : curve(work, mode == "echo");
  auto& times = measured.round_trips_us;
  std::sort(times.begin(), times.end());
  fmt::print("{{\"per_s\": {:.3f}, \"p50_us\": {}}}\n",
             static_cast<double>(work.messages) / measured.took.count(),
             times.empty() ? "null" : fmt::format("{:.1f}", times[times.size() / 2]));
  return 0;
}
