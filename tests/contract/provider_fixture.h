// A provider loaded as the interchange loads it, in a folder of its own that goes away.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "base/files.h"
#include "providers_host/provider_host.h"

namespace farcall::providers {

// Polls; false when `limit` is over.
inline bool eventually(const std::function<bool()>& condition,
                       std::chrono::seconds limit = std::chrono::seconds(60)) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

class ProviderFixture : public testing::Test {
 protected:
  ProviderFixture() {
    // Seen from the nodes of the cluster too: they have a /dev/shm of their own, not a /tmp.
    std::string name = "/tmp/farcall-provider-test.XXXXXX";
    directory_ = mkdtemp(name.data());
  }

  ~ProviderFixture() override {
    if (provider_) {
      static_cast<void>(provider_->cancel(submitted_));
      EXPECT_TRUE(eventually([&] {
        const auto jobs = provider_->status(submitted_);
        if (!jobs) return false;
        for (const auto& job : *jobs) {
          if (job.listed && job.state != JobState::kEnded) return false;
        }
        return true;
      })) << "a job of the test does not end";
    }
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }

  void load(const std::string& name, nlohmann::json config) {
    const auto module = ProviderModule::load(name);
    ASSERT_TRUE(module) << module.error().message;
    auto provider = module->create(std::move(config), directory_ / "state");
    ASSERT_TRUE(provider) << provider.error().message;
    provider_ = std::move(*provider);
  }

  BlockRequest request(const std::string& command, int nodes = 1) {
    static int count = 0;
    BlockRequest made;
    made.job_name = "contract-" + directory_.filename().string().substr(22) + "-" +
                    std::to_string(getpid()) + "-" + std::to_string(++count);
    made.nodes = nodes;
    made.command = command;
    made.directory = (directory_ / made.job_name).string();
    made.walltime_s = 600;
    return made;
  }

  std::string submit(const BlockRequest& what) {
    const auto reply = provider_->submit(what);
    if (!reply) {
      ADD_FAILURE() << "submit: " << reply.error().message;
      return "";
    }
    submitted_.push_back(reply->job_id);
    return reply->job_id;
  }

  JobStatus status(const std::string& id) {
    const auto jobs = provider_->status({id});
    if (!jobs) {
      ADD_FAILURE() << "status: " << jobs.error().message;
      return {};
    }
    return jobs->front();
  }

  JobStatus await(const std::string& id, JobState state) {
    EXPECT_TRUE(eventually([&] { return status(id).state == state; }))
        << id << " is " << job_state_name(status(id).state) << " (" << status(id).reason
        << "), not " << job_state_name(state);
    return status(id);
  }

  std::string text_of(const std::filesystem::path& path) {
    const auto text = read_file(path);
    return text ? *text : "";
  }

  std::filesystem::path directory_;
  std::unique_ptr<Provider> provider_;
  std::vector<std::string> submitted_;
};

}  // namespace farcall::providers
