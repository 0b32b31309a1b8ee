#!/usr/bin/env bash
# Fetches the jars of Apache ZooKeeper into a directory, for `ringkeeper-bench ... --server zookeeper:<directory>`.
#
# usage: bench/get-zookeeper.sh <directory> [version]
#
# Needs Maven (`mvn`), which takes them from the repository it is configured for: Maven Central by default. The server
# itself needs Java 11 or later. metrics-core and snappy-java are what ZooKeeper's own package ships beside its
# dependencies; a logging backend is left out on purpose, so that no figure contains the cost of a log.
set -euo pipefail

if [[ $# -lt 1 || $# -gt 2 ]]; then
  echo "usage: $0 <directory> [version]" >&2
  exit 2
fi
directory=$1
version=${2:-3.9.5}

if ! command -v mvn >/dev/null; then
  echo "$0: mvn (Maven) is not installed" >&2
  exit 1
fi
mkdir -p "$directory"
directory=$(cd "$directory" && pwd)
if [[ -f $directory/zookeeper-$version.jar ]]; then
  echo "$directory has zookeeper-$version.jar already"
  exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>ringkeeper</groupId>
  <artifactId>bench-zookeeper</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.zookeeper</groupId>
      <artifactId>zookeeper</artifactId>
      <version>$version</version>
    </dependency>
    <dependency>
      <groupId>io.dropwizard.metrics</groupId>
      <artifactId>metrics-core</artifactId>
      <version>4.1.12.1</version>
    </dependency>
    <dependency>
      <groupId>org.xerial.snappy</groupId>
      <artifactId>snappy-java</artifactId>
      <version>1.1.10.5</version>
    </dependency>
  </dependencies>
</project>
POM
mvn --quiet --batch-mode --file "$work/pom.xml" dependency:copy-dependencies \
  -DincludeScope=runtime -DoutputDirectory="$directory"
test -f "$directory/zookeeper-$version.jar"
echo "ZooKeeper $version is in $directory"
