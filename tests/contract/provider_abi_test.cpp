// Loading modules: what is found, what is refused and with which words, and what becomes of answers
// that make no sense.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "providers_host/provider_host.h"

namespace farcall::providers {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const fs::path kModules = FARCALL_TEST_MODULES;

Error refused(const std::string& name) {
  const auto module = ProviderModule::load(name, {kModules});
  return module ? Error{ErrorCode::kInternal, "was loaded"} : module.error();
}

TEST(ProviderLoading, TheOnesThatShipAreModulesLikeAnyOther) {
  for (const char* name : {"slurm", "pbspro", "local"}) {
    const auto module = ProviderModule::load(name);
    ASSERT_TRUE(module) << module.error().message;
    EXPECT_EQ(module->name(), name);
    const auto schema = module->schema();
    ASSERT_TRUE(schema) << schema.error().message;
    EXPECT_EQ(schema->front().name, "nodes_per_block");
  }
}

TEST(ProviderLoading, RefusesAnotherVersion) {
  const auto error = refused("otherversion");
  EXPECT_EQ(error.code, ErrorCode::kVersion);
  EXPECT_THAT(error.message, HasSubstr("otherversion.so"));
  EXPECT_THAT(error.message, HasSubstr("has version 99"));
  EXPECT_THAT(error.message, HasSubstr("this farcall has version 1"));
}

TEST(ProviderLoading, RefusesALibraryThatIsNoProvider) {
  EXPECT_THAT(refused("noentry").message, HasSubstr("does not export farcall_provider_entry"));
  EXPECT_THAT(refused("notable").message, HasSubstr("returned nothing"));
  EXPECT_THAT(refused("othername").message, HasSubstr("calls itself \"somethingelse\""));
}

TEST(ProviderLoading, RefusesWhatIsNoLibrary) {
  const fs::path folder = fs::temp_directory_path() / ("fc-abi-" + std::to_string(getpid()));
  ASSERT_TRUE(write_file((make_directory(folder), folder / "text.so"), "#!/bin/sh\n"));
  const auto module = ProviderModule::load("text", {folder});
  ASSERT_FALSE(module);
  EXPECT_EQ(module.error().code, ErrorCode::kConfig);
  EXPECT_THAT(module.error().message, HasSubstr("text.so: cannot be loaded: "));
  fs::remove_all(folder);
}

TEST(ProviderLoading, NamesWhatThereIs) {
  const auto error = refused("lsf");
  EXPECT_EQ(error.code, ErrorCode::kNotFound);
  EXPECT_THAT(error.message, HasSubstr("there is no lsf.so in " + kModules.string()));
  EXPECT_THAT(error.message, HasSubstr("found: plainc"));
  EXPECT_EQ(refused("../x").code, ErrorCode::kNotFound);
}

TEST(ProviderLoading, ListsGoodAndBad) {
  std::vector<std::string> good, bad;
  for (const auto& found : list_providers({kModules})) {
    (found.problem.empty() ? good : bad).push_back(found.name);
  }
  EXPECT_THAT(good, testing::ElementsAre("plainc"));
  EXPECT_THAT(bad, testing::ElementsAre("noentry", "notable", "othername", "otherversion"));
}

TEST(ProviderLoading, SearchesTheSitesFoldersFirst) {
  setenv("FARCALL_PROVIDER_PATH", "/site/a::/site/b", 1);
  const auto path = provider_path();
  unsetenv("FARCALL_PROVIDER_PATH");
  ASSERT_EQ(path.size(), 3U);
  EXPECT_EQ(path[0], "/site/a");
  EXPECT_EQ(path[1], "/site/b");
}

TEST(ProviderNames, FollowGlobusCompute) {
  EXPECT_EQ(module_name("SlurmProvider"), "slurm");
  EXPECT_EQ(module_name("PBSProProvider"), "pbspro");
  EXPECT_EQ(module_name("LocalProvider"), "local");
  EXPECT_EQ(module_name("flux"), "flux");
}

TEST(ProviderInPlainC, Works) {
  const auto module = ProviderModule::load("plainc", {kModules});
  ASSERT_TRUE(module) << module.error().message;
  EXPECT_EQ(module->schema()->front().default_value, "batch");
  const auto none = module->create({{"queue", "none"}}, "/tmp");
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error(), (Error{ErrorCode::kConfig, "no such queue"}));
  auto provider = module->create({{"queue", "batch"}}, "/tmp");
  ASSERT_TRUE(provider);
  // An answer to submit that cannot be read: the job may exist.
  EXPECT_EQ((*provider)->submit({"x", 1, "true", "/tmp", 60}).error().code,
            ErrorCode::kOutcomeUnknown);
  // One answer for each id that was asked, whatever the module sends.
  const auto jobs = (*provider)->status({"1", "2"});
  ASSERT_TRUE(jobs);
  ASSERT_EQ(jobs->size(), 2U);
  EXPECT_FALSE((*jobs)[0].listed);
  EXPECT_EQ((*jobs)[1].state, JobState::kRunning);
  EXPECT_EQ((*provider)->cancel({"1"}).error(), (Error{ErrorCode::kSchedulerRefused, "not today"}));
}

}  // namespace
}  // namespace farcall::providers
