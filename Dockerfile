# img2scene on ROS 2 Jazzy, by the steps of README.md. It has not been built by the tests.
#
#   docker build -t img2scene .
#   docker run --rm --network host --ipc host img2scene
#
# `--build-arg PIP_ARGS='--extra-index-url ...'` names an index that has torch without CUDA, which is
# much smaller. Other arguments of the launch file: name the whole command, such as
# `docker run ... img2scene ros2 launch img2scene bringup.launch.py rviz:=false`.
FROM ros:jazzy
SHELL ["/bin/bash", "-c"]
ARG PIP_ARGS=
WORKDIR /ws

# What the wheel of Open3D needs, and what apt has of package.xml. There is no screen for RViz.
COPY package.xml src/img2scene/
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        libegl1 libgl1 libgomp1 libx11-6 python3-venv \
    && rosdep install --from-paths src --ignore-src -y --skip-keys \
        'rviz2 python3-open3d-pip python3-pytorch-pip python3-transformers-pip python3-trimesh-pip' \
    && rm -rf /var/lib/apt/lists/*

# colcon has to run inside the virtual environment, so that the nodes find what is in it.
RUN python3 -m venv --system-site-packages venv && touch venv/COLCON_IGNORE
ENV PATH=/ws/venv/bin:$PATH
RUN pip install --no-cache-dir $PIP_ARGS \
    'numpy<2' 'open3d<0.20' torch transformers 'trimesh>=4.12' xatlas

COPY . src/img2scene
RUN source /opt/ros/jazzy/setup.bash && python -m colcon build --packages-select img2scene

ENTRYPOINT ["/bin/bash", "-c", "source /ws/install/setup.bash && exec \"$@\"", "bash"]
CMD ["ros2", "launch", "img2scene", "bringup.launch.py", "rviz:=false"]
