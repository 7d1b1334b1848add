# cudnn_frontend::cudnn_frontend, if cuDNN 9 and the headers of its frontend (pip: nvidia-cudnn-frontend, whose `include`
# folder is meant) are found. Without them attention goes through cuBLASLt alone.
set(HEADWAY_CUDNN_ROOT "" CACHE PATH "Where cuDNN is installed, if not beside CUDA")
set(HEADWAY_CUDNN_FRONTEND_ROOT "" CACHE PATH "Where cudnn_frontend.h is: this folder or its include")
find_path(CUDNN_INCLUDE_DIR cudnn_graph.h HINTS ${HEADWAY_CUDNN_ROOT} ${CUDAToolkit_INCLUDE_DIRS} PATH_SUFFIXES include)
find_library(CUDNN_LIBRARY NAMES cudnn libcudnn.so.9 HINTS ${HEADWAY_CUDNN_ROOT} ${CUDAToolkit_LIBRARY_DIR}
    ${CUDAToolkit_LIBRARY_ROOT} PATH_SUFFIXES lib lib64)
find_path(CUDNN_FRONTEND_INCLUDE_DIR cudnn_frontend.h HINTS ${HEADWAY_CUDNN_FRONTEND_ROOT} PATH_SUFFIXES include)
if(CUDNN_INCLUDE_DIR AND CUDNN_LIBRARY AND CUDNN_FRONTEND_INCLUDE_DIR)
    if(NOT TARGET cudnn_frontend::cudnn_frontend)
        message(STATUS "headway: cuDNN found, ${CUDNN_LIBRARY}; its frontend in ${CUDNN_FRONTEND_INCLUDE_DIR}")
        add_library(cudnn_frontend::cudnn_frontend INTERFACE IMPORTED GLOBAL)
        target_include_directories(cudnn_frontend::cudnn_frontend SYSTEM INTERFACE ${CUDNN_FRONTEND_INCLUDE_DIR}
            ${CUDNN_INCLUDE_DIR})
        target_link_libraries(cudnn_frontend::cudnn_frontend INTERFACE ${CUDNN_LIBRARY} CUDA::nvrtc
            ${CMAKE_DL_LIBS})
    endif()
else()
    message(STATUS "headway: cuDNN or its frontend not found (HEADWAY_CUDNN_ROOT, HEADWAY_CUDNN_FRONTEND_ROOT): attention "
        "is benchmarked through cuBLASLt alone")
endif()
