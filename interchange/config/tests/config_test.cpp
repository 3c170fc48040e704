#include "interchange/config/config.h"

#include <gtest/gtest.h>

namespace farcall::interchange {
namespace {

Result<std::vector<ConfigKey>> schema(const std::string& type) {
  if (type != "LocalProvider" && type != "SlurmProvider")
    return fail(ErrorCode::kNotFound, "no such provider");
  return std::vector<ConfigKey>{
      {.name = "nodes_per_block", .type = KeyType::kInteger, .default_value = 1, .minimum = 1},
      {.name = "init_blocks", .type = KeyType::kInteger, .default_value = 1},
      {.name = "min_blocks", .type = KeyType::kInteger, .default_value = 0},
      {.name = "max_blocks", .type = KeyType::kInteger, .default_value = 1},
      {.name = "walltime", .type = KeyType::kDuration, .default_value = 600.0},
      {.name = "partition"}};
}

TEST(EndpointConfig, ReadsWhatGlobusComputeWrites) {
  auto config = parse_endpoint_config(
      "display_name: my cluster\nengine:\n  type: GlobusComputeEngine\n  max_workers_per_node: 4\n"
      "  address:\n    type: address_by_interface\n    ifname: ib0\n  encrypted: true\n"
      "  provider:\n    type: SlurmProvider\n    partition: debug\n    nodes_per_block: 2\n    "
      "max_blocks: 3\n"
      "    walltime: 01:00:00\n",
      "c.yaml", schema);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->provider_type, "SlurmProvider");
  EXPECT_EQ(config->provider.at("partition"), "debug");
  EXPECT_EQ(config->settings.slots_per_node, 4u);
  EXPECT_EQ(config->settings.scaling.nodes_per_block, 2);
  EXPECT_EQ(config->settings.scaling.max_blocks, 3);
  EXPECT_EQ(config->settings.scaling.walltime_s, 3600);
  EXPECT_EQ(config->addresses, std::vector<std::string>{"ib0"});
  EXPECT_FALSE(config->settings.scheduler_is_local);
  ASSERT_EQ(config->warnings.size(), 1u);
  EXPECT_EQ(config->warnings[0],
            "c.yaml:8:3: the key 'engine.encrypted' has no meaning here and is ignored: every "
            "connection is encrypted");
}

TEST(EndpointConfig, AcceleratorsAreNamesOrANumberOrFound) {
  const auto with = [](const std::string& value) {
    auto config = parse_endpoint_config(
        "engine:\n  available_accelerators: " + value + "\n  provider:\n    type: LocalProvider\n",
        "c.yaml", schema);
    EXPECT_TRUE(config);
    return fmt::format("{} {}", fmt::join(config->accelerators, ","), config->detect_accelerators);
  };
  EXPECT_EQ(with("2"), "0,1 false");
  EXPECT_EQ(with("[GPU-a, GPU-b]"), "GPU-a,GPU-b false");
  EXPECT_EQ(with("['3']"), "3 false");
  EXPECT_EQ(with("auto"), " true");
  EXPECT_EQ(with("0"), " false");
}

TEST(EndpointConfig, SaysAllProblemsOfEngineAndProviderAtOnce) {
  auto config = parse_endpoint_config(
      "engine:\n  max_worker_per_node: 4\n  provider:\n    type: SlurmProvider\n    partitoin: "
      "debug\n"
      "    walltime: soon\nlog_level: loud\n",
      "c.yaml", schema);
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().message,
            "c.yaml:2:3: unknown key 'engine.max_worker_per_node'; did you mean "
            "'engine.max_workers_per_node'?\n"
            "c.yaml:5:5: unknown key 'engine.provider.partitoin'; did you mean "
            "'engine.provider.partition'?\n"
            "c.yaml:6:15: 'engine.provider.walltime' is 'soon', expected a duration such as 90, "
            "30s, 10m, 1.5h or "
            "00:10:00\n"
            "c.yaml:7:12: 'log_level' is 'loud', expected one of trace, debug, info, warn, error");
}

TEST(EndpointConfig, NeedsAProviderThatExistsAndBlocksThatFit) {
  EXPECT_EQ(parse_endpoint_config("engine:\n  provider:\n    type: MyProvider\n", "c", schema)
                .error()
                .message,
            "c:3:11: 'engine.provider.type' is 'MyProvider': no such provider");
  EXPECT_EQ(parse_endpoint_config(
                "engine:\n  provider:\n    type: LocalProvider\n    init_blocks: 2\n", "c", schema)
                .error()
                .message,
            "c:3:5: 'engine.provider': init_blocks (2) and min_blocks (0) must not exceed "
            "max_blocks (1)");
}

TEST(EndpointConfig, UnderstandsAddressesInAllTheirForms) {
  const auto addresses = [](const std::string& text) {
    auto config = parse_endpoint_config(
        "engine:\n  address: " + text + "\n  provider:\n    type: LocalProvider\n", "c", schema);
    return config ? config->addresses : std::vector<std::string>{config.error().message};
  };
  using List = std::vector<std::string>;
  EXPECT_EQ(addresses("login1"), List{"login1"});
  EXPECT_EQ(addresses("[ib0, 10.0.0.1]"), (List{"ib0", "10.0.0.1"}));
  EXPECT_EQ(addresses("{type: address_by_interface, ifname: ib0}"), List{"ib0"});
  EXPECT_EQ(addresses("{type: address_by_hostname}"), List{"address_by_hostname"});
  EXPECT_EQ(addresses("{type: address_by_route}"), List{"address_by_route"});
  EXPECT_EQ(addresses("{type: address_by_query, timeout: 30}"), List{});
  EXPECT_EQ(
      addresses("{type: by_magic}"),
      List{"c:4:5: 'engine.address' is {\"type\":\"by_magic\"}, expected a name, an address, an "
           "interface, a list of them, or {type: address_by_interface, ifname: …}, "
           "address_by_hostname, address_by_route"});
}

TEST(EndpointConfig, AffinityIsAPatternOfParsl) {
  const auto with = [](const std::string& text) {
    return parse_endpoint_config(
        "engine:\n  cpu_affinity: " + text + "\n  provider:\n    type: LocalProvider\n", "c",
        schema);
  };
  for (const char* fine : {"none", "block", "block-reverse", "alternating", "list:0,1:2-3"})
    EXPECT_EQ(with(fine)->cpu_affinity, fine);
  for (const char* wrong : {"spread", "list", "list:a"})
    EXPECT_NE(with(wrong).error().message.find(
                  "', expected none, block, block-reverse, alternating, or processors for each "
                  "worker as in list:0-3:4-7"),
              std::string::npos);
}

TEST(EndpointConfig, PortsAreARange) {
  const auto ports = [](const std::string& text) {
    return parse_endpoint_config(
        "engine:\n  worker_port_range: " + text + "\n  provider:\n    type: LocalProvider\n", "c",
        schema);
  };
  EXPECT_EQ(ports("[54000, 55000]")->port_last, 55000);
  for (const char* wrong : {"[54000]", "[2, 1]", "[0, 5]", "[1, 70000]", "[a, b]"})
    EXPECT_NE(ports(wrong).error().message.find("expected two ports from 1 to 65535"),
              std::string::npos);
}

}  // namespace
}  // namespace farcall::interchange
