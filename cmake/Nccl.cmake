# NCCL::nccl, if NCCL 2.28 or later is found (HEADWAY_NCCL_ROOT, or beside the CUDA toolkit). Without it the kernels and
# the layers of one rank are built all the same.
set(HEADWAY_NCCL_ROOT "" CACHE PATH "Where NCCL is installed, if not beside CUDA")
find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${HEADWAY_NCCL_ROOT} ${CUDAToolkit_INCLUDE_DIRS} PATH_SUFFIXES include)
find_library(NCCL_LIBRARY NAMES nccl libnccl.so.2 HINTS ${HEADWAY_NCCL_ROOT} ${CUDAToolkit_LIBRARY_DIR}
    ${CUDAToolkit_LIBRARY_ROOT} PATH_SUFFIXES lib lib64)
if(NCCL_INCLUDE_DIR AND NCCL_LIBRARY)
    file(STRINGS ${NCCL_INCLUDE_DIR}/nccl.h nccl_code REGEX "^#define NCCL_VERSION_CODE [0-9]+")
    string(REGEX MATCH "[0-9]+$" nccl_code "${nccl_code}")
    if(nccl_code LESS 22800)
        message(STATUS "headway: NCCL ${nccl_code} in ${NCCL_INCLUDE_DIR} is older than 2.28 (no ncclAlltoAll): runs of "
            "several GPU ranks are not built")
    elseif(NOT TARGET NCCL::nccl)
        message(STATUS "headway: NCCL ${nccl_code} found, ${NCCL_LIBRARY}")
        add_library(NCCL::nccl UNKNOWN IMPORTED GLOBAL)
        set_target_properties(NCCL::nccl PROPERTIES IMPORTED_LOCATION ${NCCL_LIBRARY}
            INTERFACE_INCLUDE_DIRECTORIES ${NCCL_INCLUDE_DIR})
    endif()
else()
    message(STATUS "headway: NCCL not found (HEADWAY_NCCL_ROOT): runs of several GPU ranks are not built")
endif()
