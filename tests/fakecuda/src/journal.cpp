#include "journal.h"

namespace fakecuda {
namespace {

std::string text;
bool is_open = false;

// Names of kernels have no tabs or line ends; texts of programs might.
std::string one_field(std::string field) {
  for (char& character : field) {
    if (character == '\t' || character == '\n') character = ' ';
  }
  return field;
}

}  // namespace

std::recursive_mutex& mutex() {
  static std::recursive_mutex instance;
  return instance;
}

bool is_journal_open() { return is_open; }

void write(const char* kind, int device, int stream, unsigned long long capture, const std::string& name,
           const std::string& detail) {
  if (!is_open) return;
  text += kind;
  for (const std::string& field : {std::to_string(device), std::to_string(stream), std::to_string(capture),
                                   one_field(name), one_field(detail)}) {
    text += '\t';
    text += field;
  }
  text += '\n';
}

}  // namespace fakecuda

using namespace fakecuda;

// For Python: start, stop, read, and write a line of one's own.

EXPORT void fakecuda_open_journal() {
  Lock lock;
  text.clear();
  is_open = true;
}

EXPORT void fakecuda_close_journal() {
  Lock lock;
  is_open = false;
}

// Valid until the journal is opened again.
EXPORT const char* fakecuda_journal() {
  Lock lock;
  return text.c_str();
}

EXPORT void fakecuda_mark(const char* name) {
  Lock lock;
  write("mark", fakecuda_device(), -1, 0, name);
}
