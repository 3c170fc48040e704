#include "farcall/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <future>

#include "fake_relay.h"

namespace farcall {
namespace {

using testing::HasSubstr;

class ClientTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "farcall-client-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    home_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(home_); }

  std::unique_ptr<FakeRelay> relay(FakeRelay::Handler handler) {
    auto fake = std::make_unique<FakeRelay>(std::move(handler));
    fake->home = home_;
    fake->enrol();
    return fake;
  }
  static std::unique_ptr<Client> connect(const ClientOptions& options) {
    auto client = Client::connect(options);
    EXPECT_TRUE(client) << (client ? "" : client.error().message);
    return client ? std::move(*client) : nullptr;
  }

  std::filesystem::path home_;
};

void ignore(FakeRelay&, wire::PeerId, const wire::Message&) {}

// Acknowledges everything, as the real one does after its commit.
void acknowledge(FakeRelay& relay, wire::PeerId peer, const wire::Message& message) {
  if (message.type != wire::MessageType::kSubmit) return;
  wire::SubmitAck ack;
  const auto submit = wire::decode<wire::Submit>(message);
  for (const wire::SubmitPart& part : submit->parts) {
    wire::SubmitResult result{part.submission, {}, part.seal, 0, ""};
    for (const auto& chunk : part.chunks)
      result.received.insert(
          Range{chunk.first, chunk.first + static_cast<std::uint32_t>(chunk.sizes.size())});
    ack.results.push_back(result);
  }
  relay.send(peer, ack);
}

TEST_F(ClientTest, WithoutAnIdentityTheTextSaysHowToGetOne) {
  ClientOptions options;
  options.home = home_;
  auto client = Client::connect(options);
  ASSERT_FALSE(client);
  EXPECT_EQ(client.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(client.error().message,
            "no identity in " + home_.string() +
                ": start a relay on this machine with `farcall relay start`, or `farcall login "
                "INVITATION`");
}

TEST_F(ClientTest, AnUnreachableRelayIsNamed) {
  ASSERT_TRUE(write_identity(home_ / "identity", {"tcp://127.0.0.1:1", make_key_pair().public_key,
                                                  make_key_pair(), "ada"}));
  ClientOptions options;
  options.home = home_;
  auto client = Client::connect(options);
  ASSERT_FALSE(client);
  EXPECT_EQ(client.error().message,
            "cannot reach the relay at tcp://127.0.0.1:1: connection refused; is it running? try "
            "`farcall relay status`");
}

TEST_F(ClientTest, AnotherServerKeyIsNotTrusted) {
  auto fake = relay(ignore);
  ASSERT_TRUE(write_identity(home_ / "identity",
                             {fake->address, make_key_pair().public_key, make_key_pair(), "ada"}));
  auto client = Client::connect(fake->options());
  ASSERT_FALSE(client);
  EXPECT_EQ(client.error().code, ErrorCode::kDenied);
  EXPECT_THAT(client.error().message, HasSubstr("not with the server key that is expected"));
}

TEST_F(ClientTest, ARefusalSaysHowToGetIn) {
  auto fake = relay(ignore);
  fake->refusal = Error{ErrorCode::kDenied, "this key belongs to no user"};
  auto client = Client::connect(fake->options());
  ASSERT_FALSE(client);
  EXPECT_EQ(client.error().code, ErrorCode::kDenied);
  EXPECT_THAT(client.error().message, HasSubstr("this key belongs to no user"));
  EXPECT_THAT(client.error().message, HasSubstr("farcall relay invite NAME"));
  EXPECT_EQ(fake->hellos(), 1) << "a refusal is final";
}

TEST_F(ClientTest, ACallIsSentAgainAfterAReconnectAndAnsweredOnce) {
  std::atomic<int> calls = 0;
  auto fake = relay([&](FakeRelay& relay, wire::PeerId peer, const wire::Message& message) {
    auto call = wire::decode<wire::Call>(message);
    if (message.type != wire::MessageType::kCall || !call) return;
    if (++calls == 1) return relay.reset(peer);
    relay.send(peer, wire::Reply{call->request, 0, ""}, {Bytes("{\"user\":\"ada\"}"), Bytes("x")});
  });
  auto client = connect(fake->options());
  auto answer = client->call("whoami");
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->json, "{\"user\":\"ada\"}");
  EXPECT_EQ(answer->payload.size(), 1u);
  EXPECT_EQ(calls, 2);
}

TEST_F(ClientTest, ACallThatIsNotAnsweredTimesOutAndSaysSo) {
  auto fake = relay(ignore);
  ClientOptions options = fake->options();
  options.timeout = std::chrono::milliseconds(500);
  auto client = connect(options);
  auto answer = client->call("whoami");
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::kTimeout);
  EXPECT_THAT(answer.error().message, HasSubstr("did not answer whoami within 0.5 s"));
}

TEST_F(ClientTest, ASubmissionWhoseAckIsLostIsSentAgainUnderTheSameId) {
  std::mutex mutex;
  std::vector<wire::SubmitPart> parts;
  auto fake = relay([&](FakeRelay& relay, wire::PeerId peer, const wire::Message& message) {
    if (message.type != wire::MessageType::kSubmit) return;
    {
      std::lock_guard lock(mutex);
      const auto submit = wire::decode<wire::Submit>(message);
      for (const auto& part : submit->parts) parts.push_back(part);
      if (parts.size() == 1) return relay.reset(peer);
    }
    acknowledge(relay, peer, message);
  });
  auto client = connect(fake->options());
  auto id = client->submit({}, {Bytes("Ja"), Bytes("Jb")});
  ASSERT_TRUE(id) << id.error().message;
  std::lock_guard lock(mutex);
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_EQ(parts[0].submission, parts[1].submission);
  ASSERT_TRUE(parts[0].header && parts[1].header);
  EXPECT_EQ(*parts[0].header, *parts[1].header);
  EXPECT_EQ(parts[0].chunks, parts[1].chunks);
  EXPECT_TRUE(parts[1].seal);
  EXPECT_EQ(parts[1].count, 2u);
}

TEST_F(ClientTest, ARefusedSubmissionGivesTheRelaysReason) {
  auto fake = relay([](FakeRelay& relay, wire::PeerId peer, const wire::Message& message) {
    if (message.type != wire::MessageType::kSubmit) return;
    const auto submit = wire::decode<wire::Submit>(message);
    relay.send(peer, wire::SubmitAck{{{submit->parts[0].submission,
                                       {},
                                       false,
                                       static_cast<int>(ErrorCode::kNotFound),
                                       "no such function"}}});
  });
  auto client = connect(fake->options());
  auto id = client->submit({}, {Bytes("J{}")});
  ASSERT_FALSE(id);
  EXPECT_EQ(id.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(id.error().message, "no such function");
}

TEST_F(ClientTest, AddWaitsWhenNothingIsAcknowledged) {
  auto fake = relay(ignore);
  ClientOptions options = fake->options();
  options.timeout = std::chrono::milliseconds(300);
  options.unacknowledged_bytes_max = 1 << 20;
  auto client = connect(options);
  auto writer = client->open_submission({});
  const Bytes large(std::string(1 << 20, 'x'));
  ASSERT_TRUE(writer->add(large));
  auto second = writer->add(large);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kTimeout);
  EXPECT_THAT(second.error().message, HasSubstr("has acknowledged nothing"));
}

wire::TaskResults results_of(const SubmissionId& id, std::uint32_t first, std::uint32_t last) {
  wire::TaskResults results;
  results.results.push_back({id, {}});
  for (std::uint32_t i = first; i < last; ++i) {
    TaskOutcome outcome;
    outcome.index = i;
    outcome.data_size = 2;
    results.results[0].outcomes.push_back(outcome);
  }
  return results;
}
Bytes values(std::uint32_t count) {
  std::string text;
  for (std::uint32_t i = 0; i < count; ++i) text += "J" + std::to_string(i % 10);
  return Bytes(text);
}

TEST_F(ClientTest, AWatchGoesOnOverAReconnectWithoutRepeatingAnOutcome) {
  std::atomic<int> watches = 0;
  RangeSet have_at_second;
  auto fake = relay([&](FakeRelay& relay, wire::PeerId peer, const wire::Message& message) {
    auto watch = wire::decode<wire::Watch>(message);
    if (message.type != wire::MessageType::kWatch || !watch || watch->items[0].stop) return;
    const SubmissionId id = watch->items[0].submission;
    if (++watches == 1) {
      relay.send(peer, results_of(id, 0, 3), {values(3)});
      return relay.reset(peer);
    }
    have_at_second = watch->items[0].have;
    relay.send(peer, results_of(id, 2, 5), {values(3)});
    wire::ProgressItem item;
    item.submission = id;
    item.received = item.succeeded = 5;
    item.sealed = true;
    relay.send(peer, wire::Progress{{item}});
  });
  auto client = connect(fake->options());
  std::vector<std::uint32_t> got;
  CollectRequest request;
  request.submissions = {{client->new_submission_id(), {}, true}};
  request.on_outcomes = [&](OutcomeBatch& batch) {
    for (const Outcome& outcome : batch.outcomes) {
      got.push_back(outcome.task.index);
      EXPECT_EQ(outcome.data.size(), 2u);
    }
  };
  request.timeout = std::chrono::seconds(10);
  auto progress = client->collect(std::move(request));
  ASSERT_TRUE(progress) << progress.error().message;
  EXPECT_EQ(progress->at(0).succeeded, 5u);
  EXPECT_THAT(got, testing::UnorderedElementsAre(0, 1, 2, 3, 4));
  EXPECT_EQ(watches, 2);
  // The reset may overtake the first results: then nothing was there to be left out.
  EXPECT_TRUE(have_at_second.empty() || have_at_second == (RangeSet{{0, 3}}))
      << have_at_second.string();
}

TEST_F(ClientTest, OneOutcomeCanBeAskedForByHavingAllOthers) {
  auto fake = relay([](FakeRelay& relay, wire::PeerId peer, const wire::Message& message) {
    auto watch = wire::decode<wire::Watch>(message);
    if (message.type != wire::MessageType::kWatch || !watch || watch->items[0].stop) return;
    const SubmissionId id = watch->items[0].submission;
    wire::ProgressItem item;
    item.submission = id;
    item.received = item.succeeded = 3;
    item.sealed = true;
    relay.send(peer, wire::Progress{{item}});  // complete, and the outcome comes after it
    relay.send(peer, results_of(id, 1, 2), {values(1)});
  });
  auto client = connect(fake->options());
  RangeSet others{{0, UINT32_MAX}};
  others.erase(1);
  std::vector<std::uint32_t> got;
  CollectRequest request;
  request.submissions = {{client->new_submission_id(), others, true}};
  request.on_outcomes = [&](OutcomeBatch& batch) {
    for (const Outcome& outcome : batch.outcomes) got.push_back(outcome.task.index);
  };
  request.timeout = std::chrono::seconds(10);
  auto progress = client->collect(std::move(request));
  ASSERT_TRUE(progress) << progress.error().message;
  EXPECT_THAT(got, testing::ElementsAre(1));
}

TEST_F(ClientTest, AnUnknownSubmissionIsAnError) {
  auto fake = relay([](FakeRelay& relay, wire::PeerId peer, const wire::Message& message) {
    auto watch = wire::decode<wire::Watch>(message);
    if (message.type != wire::MessageType::kWatch || !watch || watch->items[0].stop) return;
    wire::ProgressItem item;
    item.submission = watch->items[0].submission;
    item.error = static_cast<int>(ErrorCode::kNotFound);
    relay.send(peer, wire::Progress{{item}});
  });
  auto client = connect(fake->options());
  CollectRequest request;
  request.submissions = {{client->new_submission_id(), {}, true}};
  auto progress = client->collect(std::move(request));
  ASSERT_FALSE(progress);
  EXPECT_EQ(progress.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(progress.error().message, HasSubstr("knows no submission"));
}

TEST_F(ClientTest, CreditGrowsWhenBatchesAreLetGo) {
  std::mutex mutex;
  std::vector<wire::Credit> grants;
  auto fake = relay([&](FakeRelay& relay, wire::PeerId peer, const wire::Message& message) {
    if (message.type == wire::MessageType::kCredit) {
      std::lock_guard lock(mutex);
      grants.push_back(*wire::decode<wire::Credit>(message));
    }
    auto watch = wire::decode<wire::Watch>(message);
    if (message.type == wire::MessageType::kWatch && watch)
      relay.send(peer, results_of(watch->items[0].submission, 0, 4), {values(4)});
  });
  ClientOptions options = fake->options();
  options.credit_tasks = 4;
  options.credit_bytes = 1000;
  auto client = connect(options);
  std::promise<OutcomeBatch> promise;
  auto arrived = promise.get_future();
  client->watch({{client->new_submission_id(), {}, true}},
                {[&](OutcomeBatch batch) { promise.set_value(std::move(batch)); }, nullptr});
  OutcomeBatch batch = arrived.get();
  {
    std::lock_guard lock(mutex);
    ASSERT_EQ(grants.size(), 1u);
    EXPECT_EQ(grants[0].tasks, 4u);
  }
  batch = {};
  ASSERT_TRUE(fake->wait_for(wire::MessageType::kCredit, 2));
  std::lock_guard lock(mutex);
  EXPECT_EQ(grants[1].tasks, 8u);
}

TEST_F(ClientTest, AnUnknownEndpointListsTheKnownOnes) {
  auto fake = relay([](FakeRelay& relay, wire::PeerId peer, const wire::Message& message) {
    auto call = wire::decode<wire::Call>(message);
    if (message.type != wire::MessageType::kCall || !call) return;
    relay.send(peer, wire::Reply{call->request, 0, ""},
               {Bytes(R"({"endpoints":[{"name":"cluster","endpoint_id":
                   "0192f0c4-7a3e-7cc1-9a53-1c2d3e4f5061"},{"name":"laptop","endpoint_id":""}]})")});
  });
  auto client = connect(fake->options());
  auto wrong = client->find_endpoint("clutser");
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().message,
            "no endpoint \"clutser\", did you mean \"cluster\"?; yours are: cluster, laptop");
  auto right = client->find_endpoint("cluster");
  ASSERT_TRUE(right) << right.error().message;
  EXPECT_EQ(right->string(), "0192f0c4-7a3e-7cc1-9a53-1c2d3e4f5061");
}

TEST_F(ClientTest, ClosingItFailsWhatIsOpen) {
  auto fake = relay(ignore);
  auto client = connect(fake->options());
  std::promise<Result<CallAnswer>> promise;
  auto answer = promise.get_future();
  client->call_async("whoami", "{}",
                     [&](Result<CallAnswer> result) { promise.set_value(std::move(result)); });
  client.reset();
  auto result = answer.get();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kCancelled);
}

TEST(Invitation, SaysWhichPartIsWrong) {
  const std::string key = make_key_pair().public_key;
  auto good = parse_invitation("tcp://h:1|" + key + "|token");
  ASSERT_TRUE(good) << good.error().message;
  EXPECT_EQ(good->token, "token");
  EXPECT_THAT(parse_invitation("nonsense").error().message, HasSubstr("single quotes"));
  EXPECT_THAT(parse_invitation("h:1|" + key + "|t").error().message, HasSubstr("tcp://HOST:PORT"));
  EXPECT_THAT(parse_invitation("tcp://h:1|short|t").error().message, HasSubstr("expected 40"));
}

}  // namespace
}  // namespace farcall
