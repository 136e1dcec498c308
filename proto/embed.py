# SPDX-License-Identifier: Apache-2.0
"""embed.py FILE NAME: print FILE as a C array NAME and its size NAME_bytes, for the build."""
import sys

path, name = sys.argv[1:]
with open(path, 'rb') as file:
    data = file.read()
print('/* Made by proto/embed.py. */')
print('#include <stddef.h>\n#include <stdint.h>')
print(f'extern const uint8_t {name}[];\nextern const size_t {name}_bytes;')
print(f'const size_t {name}_bytes = {len(data)};')
print(f'const uint8_t {name}[] = {{')
for at in range(0, len(data), 20):
    print(''.join(f'{byte},' for byte in data[at:at + 20]))
print('};')
