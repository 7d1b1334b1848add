// Sets of enumerators: bit i stands for number i.
#pragma once

namespace headway {

template <class... Enumerator>
constexpr unsigned bits_of(Enumerator... e) {
    return ((1u << static_cast<unsigned>(e)) | ... | 0u);
}

}  // namespace headway
