#include "wire/zmq/loop.h"

#include <gtest/gtest.h>

#include <thread>

namespace farcall::wire {
namespace {

TEST(Loop, RunsTimersInOrderAndNotAfterTheyWereCancelled) {
  Loop loop;
  std::string order;
  loop.after(std::chrono::milliseconds(20), [&] { order += "b"; });
  auto cancelled = loop.after(std::chrono::milliseconds(10), [&] { order += "x"; });
  loop.after(std::chrono::milliseconds(1), [&] {
    order += "a";
    loop.cancel_timer(cancelled);
  });
  loop.after(std::chrono::milliseconds(30), [&] { loop.stop(); });
  loop.run();
  EXPECT_EQ(order, "ab");
}

TEST(Loop, RunsWhatOtherThreadsPost) {
  Loop loop;
  int count = 0;
  std::thread other([&] {
    for (int i = 0; i < 1000; ++i) loop.post([&] { ++count; });
    loop.stop();
  });
  loop.run();
  other.join();
  EXPECT_EQ(count, 1000);
}

TEST(Loop, ReadsBeforeItExpires) {
  Loop loop;
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  ASSERT_EQ(write(fds[1], "x", 1), 1);
  std::string order;
  loop.after(Duration(0), [&] {
    order += "timer";
    loop.stop();
  });
  loop.add_fd(fds[0], [&] {
    order += "input ";
    loop.remove_fd(fds[0]);
  });
  loop.run();
  EXPECT_EQ(order, "input timer");
  close(fds[0]);
  close(fds[1]);
}

TEST(Loop, LeavesAPausedDescriptorAloneUntilThePauseIsOver) {
  Loop loop;
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  ASSERT_EQ(write(fds[1], "x", 1), 1);
  int calls = 0;
  loop.add_fd(fds[0], [&] {
    ++calls;
    loop.remove_fd(fds[0]);
  });
  loop.pause_fd(fds[0], std::chrono::milliseconds(20));
  loop.pause_fd(fds[0], std::chrono::hours(1));  // it rests already: no change
  loop.run_once(Duration(0));
  EXPECT_EQ(calls, 0);
  while (calls == 0) loop.run_once(std::chrono::milliseconds(50));
  close(fds[0]);
  close(fds[1]);
}

}  // namespace
}  // namespace farcall::wire
