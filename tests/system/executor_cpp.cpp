// The C++ Executor against a running endpoint called "here": test_native.py starts it and this
// program. FARCALL_HOME is that of the test.
#include <farcall/executor.h>
#include <gtest/gtest.h>

#include <numeric>

namespace farcall {
namespace {

using namespace std::chrono_literals;
constexpr Duration kSoon = 60s;

class ExecutorOfCpp : public testing::Test {
 protected:
  void SetUp() override {
    auto connected = Client::connect();
    ASSERT_TRUE(connected) << connected.error().message;
    client = std::move(*connected);
    auto made = Executor::make(*client, "here");
    ASSERT_TRUE(made) << made.error().message;
    executor.emplace(std::move(*made));
  }
  FunctionId function(const std::string& name) {
    auto read = read_native_function(FARCALL_TEST_LIBRARY, name);
    EXPECT_TRUE(read) << (read ? "" : read.error().message);
    auto id = client->register_function(read->record, read->body);
    EXPECT_TRUE(id) << (id ? "" : id.error().message);
    return *id;
  }
  std::unique_ptr<Client> client;
  std::optional<Executor> executor;
};

TEST_F(ExecutorOfCpp, GivesValuesInTheOrderOfTheCalls) {
  std::vector<std::tuple<int, int>> rows;
  for (int i = 0; i < 300; ++i) rows.emplace_back(i, 2 * i);
  auto futures = executor->submit_all<int>(function("add"), rows);
  ASSERT_TRUE(futures) << futures.error().message;
  for (int i = 0; i < 300; ++i)
    EXPECT_EQ((*futures)[static_cast<std::size_t>(i)].get(kSoon).value(), 3 * i);
  EXPECT_TRUE(futures->front().ready());
  EXPECT_EQ(futures->front().get(kSoon).value(), 0);  // again
}

TEST_F(ExecutorOfCpp, MovesLargeArgumentsAndResultsAsBlobs) {
  for (const std::size_t mib : {2, 9}) {  // in a message, as a blob
    std::vector<std::byte> data(mib << 20);
    for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i * 7 >> 3);
    auto back = executor->call<std::vector<std::byte>>(function("bytes"), data);
    ASSERT_TRUE(back) << back.error().message;
    ASSERT_EQ(back->size(), data.size());
    for (std::size_t i = 0; i < data.size(); ++i)
      ASSERT_EQ((*back)[i], data[i] ^ std::byte{0xff}) << i;
  }
}

TEST_F(ExecutorOfCpp, SaysWhatWentWrong) {
  const auto thrown = executor->call<int>(function("throws"), "too hot");
  ASSERT_FALSE(thrown);
  EXPECT_EQ(thrown.error().code, ErrorCode::kTaskFailed);
  EXPECT_NE(thrown.error().message.find("Unstable: too hot"), std::string::npos)
      << thrown.error().message;
  const auto wrong = executor->call<std::vector<int>>(function("add"), 1, 2);
  ASSERT_FALSE(wrong);
  EXPECT_NE(wrong.error().message.find("the result"), std::string::npos) << wrong.error().message;
  const auto nowhere = Executor::make(*client, "nowhere");
  ASSERT_FALSE(nowhere);
  EXPECT_NE(nowhere.error().message.find("here"), std::string::npos) << nowhere.error().message;
}

TEST_F(ExecutorOfCpp, WaitsAsLongAsItIsToldAndCancels) {
  auto future = executor->submit<void>(function("sleeps"), 3600.0);
  ASSERT_TRUE(future) << future.error().message;
  const auto late = future->get(50ms);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, ErrorCode::kTimeout);
  EXPECT_EQ(late.error().message,
            "task " + future->task().string() + " was not finished after 0.05 s");
  ASSERT_TRUE(future->cancel());
  const auto gone = future->get(kSoon);
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().code, ErrorCode::kCancelled);
}

}  // namespace
}  // namespace farcall
