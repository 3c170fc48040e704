#include "farcall/payload.h"

#include <nlohmann/json.hpp>

#include "staging/value.h"

namespace farcall {

using nlohmann::json;

namespace {

// A string or binary value, else nothing.
std::string bytes_of(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_binary()) return {};
  const auto& bytes = value.get_binary();
  return {bytes.begin(), bytes.end()};
}

std::string field(const json& object, const char* key) {
  auto found = object.find(key);
  return found == object.end() ? std::string() : bytes_of(*found);
}

json binary(const std::string& text) {
  return json::binary(std::vector<std::uint8_t>(text.begin(), text.end()));
}

std::string first_byte(std::string_view data) {
  if (data.empty()) return "nothing";
  const auto byte = static_cast<unsigned char>(data[0]);
  return byte >= 0x20 && byte < 0x7f ? fmt::format("'{}'", data[0])
                                     : fmt::format("byte 0x{:02x}", byte);
}

}  // namespace

Bytes json_arguments(const json& args, const json& kwargs) {
  json object = json::object();
  if (!args.is_null() && !args.empty()) object["args"] = args;
  if (!kwargs.is_null() && !kwargs.empty()) object["kwargs"] = kwargs;
  return json_arguments(object);
}

Bytes json_arguments(const json& object) { return Bytes("J" + object.dump()); }

std::string encode_shell_result(const ShellResult& result) {
  const json fields = json::array({result.command, binary(result.out), binary(result.err),
                                   result.returncode, result.exception_name, result.truncated});
  const std::vector<std::uint8_t> packed = json::to_msgpack(fields);
  return "S" + std::string(packed.begin(), packed.end());
}

Result<ShellResult> decode_shell_result(std::string_view data) {
  if (data.empty() || data[0] != 'S')
    return fail(ErrorCode::kCorrupt, "a shell result begins with 'S', this one with {}",
                first_byte(data));
  const json fields = json::from_msgpack(data.substr(1), true, false);
  const bool well_formed = fields.is_array() && fields.size() >= 6 &&
                           fields[3].is_number_integer() && fields[5].is_boolean();
  if (!well_formed)
    return fail(ErrorCode::kCorrupt,
                "a shell result of {} bytes is no MessagePack array of its six fields",
                data.size());
  ShellResult result;
  result.command = bytes_of(fields[0]);
  result.out = bytes_of(fields[1]);
  result.err = bytes_of(fields[2]);
  result.returncode = fields[3].get<std::int32_t>();
  result.exception_name = bytes_of(fields[4]);
  result.truncated = fields[5].get<bool>();
  return result;
}

std::string encode_failure(const json& head, std::string_view pickle) {
  const std::string text = head.dump(-1, ' ', false, json::error_handler_t::replace);
  const auto length = static_cast<std::uint32_t>(text.size());
  std::string data = "E";
  for (int shift = 0; shift < 32; shift += 8) data.push_back(static_cast<char>(length >> shift));
  data += text;
  data.append(pickle);
  return data;
}

Result<Failure> decode_failure(std::string_view data) {
  if (data.size() < 5 || data[0] != 'E')
    return fail(ErrorCode::kCorrupt, "a failure begins with 'E' and a length, this one with {}",
                first_byte(data));
  std::uint32_t length = 0;
  for (int i = 0; i < 4; ++i)
    length |= static_cast<std::uint32_t>(static_cast<unsigned char>(data[1 + i])) << (8 * i);
  if (length > data.size() - 5)
    return fail(ErrorCode::kCorrupt, "a failure says its head has {} bytes, but {} are there",
                length, data.size() - 5);
  Failure failure;
  failure.json = data.substr(5, length);
  failure.pickle = data.substr(5 + length);
  const json head = json::parse(failure.json, nullptr, false);
  if (!head.is_object())
    return fail(ErrorCode::kCorrupt, "the head of a failure is no JSON object");
  failure.type = field(head, "type");
  failure.module = field(head, "module");
  failure.message = field(head, "message");
  failure.traceback = field(head, "traceback");
  failure.failure_class = field(head, "class");
  failure.host = field(head, "host");
  return failure;
}

std::string failure_line(const Failure& failure) {
  if (failure.type.empty()) return failure.message;
  if (failure.message.empty()) return failure.type;
  return failure.type + ": " + failure.message;
}

Result<std::optional<json>> value_as_json(std::string_view data) {
  if (data.empty()) return std::optional<json>(nullptr);
  if (data[0] == 'J') {
    json value = json::parse(data.substr(1), nullptr, false);
    if (value.is_discarded())
      return fail(ErrorCode::kCorrupt, "a JSON result of {} bytes cannot be parsed", data.size());
    return std::optional<json>(std::move(value));
  }
  if (data[0] == 'S') {
    auto shell = decode_shell_result(data);
    if (!shell) return fail(shell.error());
    json value = {{"cmd", shell->command},     {"stdout", shell->out},
                  {"stderr", shell->err},      {"returncode", shell->returncode},
                  {"exception_name", nullptr}, {"truncated", shell->truncated}};
    if (!shell->exception_name.empty()) value["exception_name"] = shell->exception_name;
    return std::optional<json>(std::move(value));
  }
  if (std::string_view("NPD").find(data[0]) == std::string_view::npos)
    return fail(ErrorCode::kCorrupt, "a result begins with {}, expected 'J', 'N', 'P', 'D' or 'S'",
                first_byte(data));
  auto value = staging::decode_value(data);
  if (!value) return fail(value.error());
  return staging::value_to_json(*value);
}

}  // namespace farcall
