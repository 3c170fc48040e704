// What an encrypted ZeroMQ connection can do on this machine, with nothing of farcall in it.
//
//   farcall-bench-curve MESSAGES WINDOW [BYTES]
// Echoes MESSAGES of BYTES (256) over TCP with CURVE, WINDOW under way at a time; prints echoes a
// second.
#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>
#include <zmq.hpp>

#include "base/keys.h"

namespace {

void serve(zmq::context_t& context, const farcall::KeyPair& keys, std::string& address,
           std::uint64_t messages, zmq::socket_t& ready) {
  zmq::socket_t socket(context, zmq::socket_type::dealer);
  socket.set(zmq::sockopt::curve_server, true);
  socket.set(zmq::sockopt::curve_publickey, keys.public_key);
  socket.set(zmq::sockopt::curve_secretkey, keys.secret_key);
  socket.bind("tcp://127.0.0.1:*");
  address = socket.get(zmq::sockopt::last_endpoint);
  ready.send(zmq::message_t(), zmq::send_flags::none);
  for (std::uint64_t i = 0; i < messages; ++i) {
    zmq::message_t message;
    if (!socket.recv(message)) return;
    socket.send(message, zmq::send_flags::none);
  }
  zmq::message_t last;
  (void)ready.recv(last);  // until the client has everything
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    fmt::print(stderr, "usage: farcall-bench-curve MESSAGES WINDOW [BYTES]\n");
    return 2;
  }
  const std::uint64_t messages = std::strtoull(argv[1], nullptr, 10);
  const std::uint64_t window = std::strtoull(argv[2], nullptr, 10);
  const std::size_t bytes = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 256;
  if (messages == 0 || window == 0) {
    fmt::print(stderr, "farcall-bench-curve: MESSAGES and WINDOW have to be at least 1\n");
    return 2;
  }
  zmq::context_t context;
  zmq::socket_t here(context, zmq::socket_type::pair), there(context, zmq::socket_type::pair);
  here.bind("inproc://ready");
  there.connect("inproc://ready");
  const farcall::KeyPair server = farcall::make_key_pair(), client = farcall::make_key_pair();
  std::string address;
  std::thread thread([&] { serve(context, server, address, messages, there); });
  zmq::message_t signal;
  (void)here.recv(signal);
  zmq::socket_t socket(context, zmq::socket_type::dealer);
  socket.set(zmq::sockopt::curve_serverkey, server.public_key);
  socket.set(zmq::sockopt::curve_publickey, client.public_key);
  socket.set(zmq::sockopt::curve_secretkey, client.secret_key);
  socket.connect(address);
  const std::string payload(bytes, 'x');
  const auto start = std::chrono::steady_clock::now();
  std::uint64_t sent = 0;
  for (std::uint64_t received = 0; received < messages; ++received) {
    for (; sent < messages && sent < received + window; ++sent)
      socket.send(zmq::buffer(payload), zmq::send_flags::none);
    zmq::message_t echo;
    (void)socket.recv(echo);
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  here.send(zmq::message_t(), zmq::send_flags::none);
  thread.join();
  fmt::print("{:.0f}\n", static_cast<double>(messages) / took.count());
  return 0;
}
