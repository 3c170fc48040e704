#include "pilot/runners/shell_template.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace farcall::pilot {
namespace {

std::string filled(const std::string& text, const nlohmann::json& kwargs,
                   const std::set<std::string>& raw = {}) {
  auto result = fill_template(text, kwargs, raw);
  return result ? *result : "error: " + result.error().message;
}

TEST(ShellTemplate, FillsWhatIsNamedAndLeavesTheRest) {
  const nlohmann::json kwargs = {{"a", "x y"}, {"n", 3}, {"yes", true}, {"f", 0.5}};
  EXPECT_EQ(filled("p {a} {n} {yes} {f}", kwargs), "p 'x y' 3 True 0.5");
  EXPECT_EQ(filled("p {a}", kwargs, {"a"}), "p x y");
  EXPECT_EQ(filled("{other} {} { a } {a", kwargs), "{other} {} { a } {a");
  EXPECT_EQ(filled("awk '{print $1}'", kwargs), "awk '{print $1}'");
  EXPECT_EQ(filled("awk '{{print $1}}'", kwargs), "awk '{print $1}'");
  EXPECT_EQ(filled("${A:-${B}} {{{n}}}", kwargs), "${A:-${B}} {3}");
  EXPECT_EQ(filled("${a:-none}", kwargs), "${a:-none}");
  EXPECT_EQ(filled("it's {a}", {{"a", "it's"}}), "it's 'it'\\''s'");
}

TEST(ShellTemplate, SaysThatFormatsAreNotSupported) {
  EXPECT_NE(filled("{n:03d}", {{"n", 1}}).find("{n:…}: formats are not supported"),
            std::string::npos);
}

TEST(PlainWords, AreThoseOfOneProgramWithNothingForAShellToDo) {
  using Words = std::vector<std::string>;
  EXPECT_EQ(plain_words("/bin/true"), (Words{"/bin/true"}));
  EXPECT_EQ(plain_words("  solve --steps=10\tin.yaml,a:b x@y 50%+ "),
            (Words{"solve", "--steps=10", "in.yaml,a:b", "x@y", "50%+"}));
  EXPECT_EQ(plain_words("./run-1.sh"), (Words{"./run-1.sh"}));
}

TEST(PlainWords, AnythingElseTakesAShell) {
  for (const char* command :
       {"",      " ",     "a; b",   "a | b", "a & b", "a > f",   "a 'b'",     "a \"b\"",
        "a $b",  "a `b`", "a *",    "a ?",   "a [b]", "a {b,c}", "a ~",       "a # b",
        "a \\b", "a\nb",  "! a",    "(a)",   "A=1",   "A=1 b",   "%1",        ".",
        ". x",   ": x",   "echo x", "cd x",  "if x",  "time x",  "test -e x", "a \xc3\xa4"})
    EXPECT_TRUE(plain_words(command).empty()) << command;
}

}  // namespace
}  // namespace farcall::pilot
