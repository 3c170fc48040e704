// Whole configurations against the tables of the real providers: the ones this repository offers
// for well-known machines, and those of Globus Compute, which work as they are.
#include <gmock/gmock.h>

#include <filesystem>
#include <set>

#include "base/files.h"
#include "interchange/config/config.h"
#include "interchange/tool/tool.h"

namespace farcall::interchange {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::HasSubstr;

const fs::path kRoot = FARCALL_TEST_ROOT;

std::set<std::string> yaml_files(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".yaml") names.insert(entry.path().stem());
  return names;
}

EndpointConfig globus(const std::string& name) {
  const fs::path file = kRoot / "tests/contract/globus_configs" / (name + ".yaml");
  const auto config = load_endpoint_config(file, provider_schema);
  EXPECT_TRUE(config) << config.error().message;
  const auto checked = check_config(file);
  EXPECT_TRUE(checked) << checked.error().message;
  return config ? *config : EndpointConfig();
}

TEST(SiteConfigs, AreRightAndSayNothingInVain) {
  const auto names = yaml_files(kRoot / "docs/sites");
  EXPECT_EQ(names,
            (std::set<std::string>{"anvil", "aurora", "bridges2", "delta", "expanse", "frontier",
                                   "midway", "perlmutter", "polaris", "stampede3"}));
  const std::string page = *read_file(kRoot / "docs/sites/README.md");
  for (const auto& name : names) {
    const auto warnings = check_config(kRoot / "docs/sites" / (name + ".yaml"));
    ASSERT_TRUE(warnings) << warnings.error().message;
    EXPECT_THAT(*warnings, testing::IsEmpty());
    EXPECT_THAT(page, HasSubstr("`" + name + ".yaml`"));
  }
}

TEST(GlobusConfigs, OfSlurmMeanTheSameHere) {
  const auto config = globus("slurm");
  EXPECT_EQ(config.provider_type, "SlurmProvider");
  EXPECT_EQ(config.provider.at("constraint"), "skylake");
  EXPECT_EQ(config.provider.at("launcher").at("overrides"), "--hint=nomultithread");
  EXPECT_EQ(config.settings.slots_per_node, 2U);
  EXPECT_EQ(config.settings.scaling.walltime_s, 3600);
  EXPECT_EQ(config.addresses, std::vector<std::string>{"ib0"});
  EXPECT_EQ(config.port_first, 54000);
  EXPECT_EQ(config.port_last, 55000);
}

TEST(GlobusConfigs, OfPbsMeanTheSameHere) {
  const auto config = globus("pbs");
  EXPECT_EQ(config.provider_type, "PBSProProvider");
  EXPECT_EQ(config.provider.at("queue"), "preemptable");
  EXPECT_EQ(config.provider.at("select_options"), "ngpus=4");
  EXPECT_EQ(config.provider.at("launcher").at("bind_cmd"), "--cpu-bind");
  EXPECT_EQ(config.settings.scaling.parallelism, 0.5);
  EXPECT_EQ(config.addresses, std::vector<std::string>{"address_by_hostname"});
}

TEST(GlobusConfigs, OfMpiAndRenderedTemplatesLoad) {
  EXPECT_EQ(globus("mpi").settings.scaling.nodes_per_block, 4);
  const auto rendered = globus("rendered_template");
  EXPECT_EQ(rendered.settings.scaling.max_blocks, 3);
  EXPECT_EQ(rendered.provider.at("worker_init"), "echo \"it's\"");
  EXPECT_EQ(globus("local").provider_type, "LocalProvider");
}

TEST(GlobusConfigs, SayOnceWhatHasNoMeaningHere) {
  for (const auto& name : yaml_files(kRoot / "tests/contract/globus_configs")) {
    const auto warnings = globus(name).warnings;
    EXPECT_EQ(std::set<std::string>(warnings.begin(), warnings.end()).size(), warnings.size());
  }
  EXPECT_THAT(globus("slurm").warnings,
              Contains(HasSubstr("the key 'engine.provider.status_batch_size' has no meaning here "
                                 "and is ignored: one squeue asks for all blocks")));
}

// farcall-interchange --config-reference >docs/configuration.md
TEST(ConfigurationPage, IsMadeFromTheTables) {
  EXPECT_EQ(*read_file(kRoot / "docs/configuration.md"), config_reference_page())
      << "write it anew: farcall-interchange --config-reference >docs/configuration.md";
}

}  // namespace
}  // namespace farcall::interchange
