// What an ELF shared object says of itself, without loading it. Pure; thread-safe. Inline: two
// programs need it and no other is to carry it.
#pragma once

#include <elf.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace farcall {

struct SharedObject {
  std::string machine;               // "x86-64", "AArch64" …
  std::vector<std::string> symbols;  // names it exports, sorted
};

// The machine that this program was built for, in the same words.
std::string this_machine();
// kInvalidArgument says what the bytes are instead, kCorrupt where the file breaks off.
Result<SharedObject> read_shared_object(std::string_view bytes);

namespace elf_detail {

inline std::string machine_name(unsigned number) {
  switch (number) {
    case EM_X86_64:
      return "x86-64";
    case EM_AARCH64:
      return "AArch64";
    case EM_PPC64:
      return "PowerPC64";
    case EM_RISCV:
      return "RISC-V";
    case EM_386:
      return "x86 (32 bits)";
    default:
      return "machine " + std::to_string(number);
  }
}

// A struct of the file; false: the file is shorter.
template <class T>
bool read_at(std::string_view bytes, std::uint64_t offset, T& into) {
  if (offset > bytes.size() || sizeof(T) > bytes.size() - offset) return false;
  std::memcpy(&into, bytes.data() + offset, sizeof(T));
  return true;
}

inline std::string beginning(std::string_view bytes) {
  std::string out;
  for (char c : bytes.substr(0, 12)) out += c >= ' ' && c <= '~' ? c : '.';
  return out;
}

}  // namespace elf_detail

inline std::string this_machine() {
#if defined(__x86_64__)
  return elf_detail::machine_name(EM_X86_64);
#elif defined(__aarch64__)
  return elf_detail::machine_name(EM_AARCH64);
#elif defined(__powerpc64__)
  return elf_detail::machine_name(EM_PPC64);
#elif defined(__riscv)
  return elf_detail::machine_name(EM_RISCV);
#else
  return "unknown";
#endif
}

inline Result<SharedObject> read_shared_object(std::string_view bytes) {
  if (bytes.substr(0, SELFMAG) != std::string_view(ELFMAG, SELFMAG))
    return fail(ErrorCode::kInvalidArgument,
                "no ELF shared object: it has {} bytes and begins with '{}'", bytes.size(),
                elf_detail::beginning(bytes));
  const auto broken = [&](const char* what) {
    return fail(ErrorCode::kCorrupt, "a damaged ELF file: its {} lies beyond its {} bytes", what,
                bytes.size());
  };
  Elf64_Ehdr header;
  if (!elf_detail::read_at(bytes, 0, header)) return broken("header");
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB)
    return fail(
        ErrorCode::kInvalidArgument,
        "an ELF file of 32 bits or of the other byte order; expected 64 bits, little-endian");
  SharedObject out;
  out.machine = elf_detail::machine_name(header.e_machine);
  if (header.e_type != ET_DYN)
    return fail(ErrorCode::kInvalidArgument,
                "an ELF file that is no shared object (an object file or a program): link it with "
                "-shared");
  for (unsigned i = 0; i < header.e_shnum; ++i) {
    Elf64_Shdr section, strings;
    if (!elf_detail::read_at(bytes, header.e_shoff + std::uint64_t{i} * sizeof section, section))
      return broken("table of sections");
    if (section.sh_type != SHT_DYNSYM) continue;
    if (!elf_detail::read_at(
            bytes, header.e_shoff + std::uint64_t{section.sh_link} * sizeof strings, strings))
      return broken("table of sections");
    for (std::uint64_t at = 0; at + sizeof(Elf64_Sym) <= section.sh_size; at += sizeof(Elf64_Sym)) {
      Elf64_Sym symbol;
      if (!elf_detail::read_at(bytes, section.sh_offset + at, symbol))
        return broken("table of symbols");
      if (symbol.st_shndx == SHN_UNDEF || ELF64_ST_BIND(symbol.st_info) == STB_LOCAL) continue;
      const std::uint64_t name = strings.sh_offset + symbol.st_name;
      if (name >= bytes.size()) return broken("table of names");
      const std::string_view rest = bytes.substr(name);
      out.symbols.emplace_back(rest.substr(0, rest.find('\0')));
    }
  }
  std::sort(out.symbols.begin(), out.symbols.end());
  return out;
}

}  // namespace farcall
