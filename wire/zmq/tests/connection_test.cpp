#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <optional>

#include "wire/codec.h"
#include "wire/zmq/dialer.h"
#include "wire/zmq/listener.h"

namespace farcall::wire {
namespace {

bool nobody_listens(const std::string& address) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port =
      htons(static_cast<std::uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  const bool refused = connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0;
  close(fd);
  return refused;
}

// A server and a client on one loop, each with what it has seen.
class Connection : public ::testing::Test {
 protected:
  void listen(const std::string& address = "tcp://127.0.0.1:0") {
    ListenerHandlers handlers;
    handlers.on_hello = [this](PeerId peer, const std::string& key, const Message&) {
      hello_keys.push_back(key);
      last_peer = peer;
      if (refusal) {
        server->refuse(peer, *refusal);
      } else {
        server->send(peer, make_message(ClientWelcome{"relay", "ann", "1", 0}));
      }
    };
    handlers.on_message = [this](PeerId, const Message& m) { at_server.push_back(m); };
    handlers.on_gone = [this](PeerId peer) { gone.push_back(peer); };
    auto opened = Listener::open(loop, {address, server_keys, 0, 0}, handlers);
    ASSERT_TRUE(opened) << opened.error().message;
    server = std::move(*opened);
  }
  void dial(const std::string& key, std::vector<std::string> addresses) {
    DialerHandlers handlers;
    handlers.make_hello = [] { return make_message(ClientHello{}); };
    handlers.on_message = [this](const Message& m) { at_client.push_back(m); };
    handlers.on_refused = [this](const Error& e) { refused = e; };
    handlers.on_down = [this](const Error& e) { down = e; };
    client.emplace(loop, DialerOptions{addresses, key, client_keys}, handlers);
  }
  template <class Condition>
  bool wait_for(Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      loop.run_once(std::chrono::milliseconds(50));
    }
    return true;
  }

  Loop loop;
  KeyPair server_keys = make_key_pair(), client_keys = make_key_pair();
  std::unique_ptr<Listener> server;
  std::optional<Dialer> client;
  std::optional<Error> refusal, refused, down;
  std::vector<std::string> hello_keys;
  std::vector<Message> at_server, at_client;
  std::vector<PeerId> gone;
  PeerId last_peer = 0;
};

TEST_F(Connection, CarriesMessagesBothWaysAndProvesTheKey) {
  listen();
  dial(server_keys.public_key, {server->address()});
  ASSERT_TRUE(wait_for([&] { return client->is_up(); })) << client->last_error().message;
  EXPECT_EQ(hello_keys, std::vector{client_keys.public_key});
  ASSERT_EQ(at_client.size(), 1u);
  EXPECT_EQ(at_client[0].type, MessageType::kClientWelcome);
  const std::string large(100'000, 'x');
  ASSERT_TRUE(client->send(make_message(Credit{1, 2}, {Bytes(large), Bytes(std::string("y"))})));
  ASSERT_TRUE(wait_for([&] { return !at_server.empty(); }));
  ASSERT_EQ(at_server[0].payload.size(), 2u);
  EXPECT_EQ(at_server[0].payload[0].view(), large);
  EXPECT_EQ(decode<Credit>(at_server[0])->bytes, 2u);
  ASSERT_TRUE(server->send(last_peer, make_message(Credit{3, 4})));
  ASSERT_TRUE(wait_for([&] { return at_client.size() == 2; }));
}

TEST_F(Connection, ARefusalIsFinalAndSaysWhy) {
  refusal = Error{ErrorCode::kDenied, "the key is not known here"};
  listen();
  dial(server_keys.public_key, {server->address()});
  ASSERT_TRUE(wait_for([&] { return refused.has_value(); }));
  EXPECT_EQ(*refused, *refusal);
  EXPECT_FALSE(client->is_up());
  EXPECT_EQ(hello_keys.size(), 1u);
}

TEST_F(Connection, TellsAWrongServerKeyFromNobodyThere) {
  listen();
  dial(make_key_pair().public_key, {server->address()});
  ASSERT_TRUE(wait_for([&] { return down.has_value(); }));
  EXPECT_EQ(down->code, ErrorCode::kDenied);
  EXPECT_NE(down->message.find("not with the server key"), std::string::npos) << down->message;
  EXPECT_TRUE(hello_keys.empty());
  const std::string address = server->address();
  client.reset();
  server.reset();
  ASSERT_TRUE(wait_for([&] { return nobody_listens(address); }));  // it is closed in the background
  down.reset();
  dial(server_keys.public_key, {address});
  ASSERT_TRUE(wait_for([&] { return down.has_value(); }));
  EXPECT_EQ(down->code, ErrorCode::kUnreachable);
  EXPECT_EQ(down->message, "connection refused by " + address);
}

TEST_F(Connection, TriesTheNextAddress) {
  listen();
  // Port 1 of loopback: nobody listens there.
  dial(server_keys.public_key, {"tcp://127.0.0.1:1", server->address()});
  EXPECT_TRUE(wait_for([&] { return client->is_up(); }));
}

TEST_F(Connection, SaysHelloAgainWhenTheServerStartsAnew) {
  listen();
  const std::string address = server->address();
  dial(server_keys.public_key, {address});
  ASSERT_TRUE(wait_for([&] { return client->is_up(); }));
  server.reset();
  ASSERT_TRUE(wait_for([&] { return !client->is_up(); }));
  EXPECT_FALSE(client->send(make_message(Credit{1, 1})));
  listen(address);
  ASSERT_TRUE(wait_for([&] { return client->is_up(); }));
  EXPECT_EQ(hello_keys.size(), 2u);
  ASSERT_TRUE(client->send(make_message(Credit{1, 1})));
  ASSERT_TRUE(wait_for([&] { return at_server.size() == 1; }));
}

TEST_F(Connection, AResetLeadsToANewSession) {
  listen();
  dial(server_keys.public_key, {server->address()});
  ASSERT_TRUE(wait_for([&] { return client->is_up(); }));
  const PeerId first = last_peer;
  server->reset(first, "for the test");
  ASSERT_TRUE(wait_for([&] { return last_peer != first && client->is_up(); }));
  EXPECT_EQ(gone, std::vector{first});
  EXPECT_NE(down->message.find("for the test"), std::string::npos);
}

TEST_F(Connection, ADialerThatEndsSaysGoodbyeAfterAllThatItSent) {
  listen();
  dial(server_keys.public_key, {server->address()});
  ASSERT_TRUE(wait_for([&] { return client->is_up(); }));
  const std::string large(5'000'000, 'x');
  ASSERT_TRUE(client->send(make_message(Credit{1, 2}, {Bytes(large)})));
  client.reset();
  // Long before the silence limit: its session was told to end.
  const auto deadline = std::chrono::steady_clock::now() + ListenerOptions{}.silence_limit / 2;
  while (gone.empty() && std::chrono::steady_clock::now() < deadline)
    loop.run_once(std::chrono::milliseconds(50));
  EXPECT_EQ(gone, std::vector{last_peer});
  EXPECT_EQ(at_server.size(), 1u);
}

TEST_F(Connection, APortThatIsTakenIsNamed) {
  listen();
  Loop other;
  auto second = Listener::open(other, {server->address(), server_keys, 0, 0}, {});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().message,
            "cannot listen on " + server->address() + ": Address already in use");
}

}  // namespace
}  // namespace farcall::wire
