#!/usr/bin/env bash
# Makes the certificates and stores of the TLS tests anew, in this directory. They secure nothing: the keys are public.
# Needs openssl 3 and Java's keytool. The password of every store is "secret".
set -euo pipefail
cd "$(dirname "$0")"
rm -f ./*.pem ./*.p12 ./*.jks password
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Valid wherever the clock stands; what has ended is over everywhere.
always=(-startdate 20200101000000Z -enddate 21200101000000Z)
over=(-startdate 20200101000000Z -enddate 20210101000000Z)
mkdir "$work/signed" && touch "$work/index"
cat >"$work/ca.cnf" <<CNF
[ca]
default_ca = signing
[signing]
database = $work/index
new_certs_dir = $work/signed
rand_serial = yes
default_md = sha256
unique_subject = no
policy = any
[any]
countryName = optional
stateOrProvinceName = optional
organizationName = optional
organizationalUnitName = optional
domainComponent = optional
commonName = optional
emailAddress = optional
CNF

ec=(-newkey ec -pkeyopt ec_paramgen_curve:P-256)
rsa=(-newkey rsa:2048)
authority=$'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign'
server=$'basicConstraints=critical,CA:FALSE\nsubjectAltName=DNS:localhost,IP:127.0.0.1'
client=$'basicConstraints=critical,CA:FALSE'

# A key and its signed certificate in the work directory: name, subject, extensions, then options of the signing.
sign() {
    local name=$1 subject=$2 extensions=$3
    shift 3
    openssl req "${key[@]}" -nodes -utf8 -multivalue-rdn -subj "$subject" -keyout "$work/$name.key" -out "$work/$name.csr"
    openssl ca -batch -notext -preserveDN -config "$work/ca.cnf" -in "$work/$name.csr" -extfile <(printf '%s\n' "$extensions") \
        -out "$work/$name.crt" "$@"
}

# As that, by an authority, with its certificate and the key in one file: name, subject, extensions, authority, validity.
certificate() {
    sign "$1" "$2" "$3" -cert "$4.pem" -keyfile "$work/$4.key" "${@:5}"
    cat "$work/$1.crt" "$4.pem" "$work/$1.key" >"$1.pem"
}

key=("${ec[@]}")
for name in ca other-ca; do
    sign $name "/CN=$name of ringkeeper's tests" "$authority" -selfsign -keyfile "$work/$name.key" "${always[@]}"
    cp "$work/$name.crt" $name.pem
done
certificate server "/CN=localhost" "$server" ca "${always[@]}"
certificate client "/C=DE/ST=Berlin/O=Acme, Inc/OU=Ops/CN=client one" "$client" ca "${always[@]}"
certificate super "/CN=super" "$client" ca "${always[@]}"
certificate odd "/DC=org/emailAddress=a@b/O=a+OU=b/CN= #ü,\"\\\\;<>=\\+ " "$client" ca "${always[@]}"
certificate stranger "/CN=client one" "$client" other-ca "${always[@]}"
certificate expired "/CN=late" "$client" ca "${over[@]}"
# Signed by itself, and marked as an authority, as openssl does unless told otherwise.
sign alone "/CN=alone" "$authority" -selfsign -keyfile "$work/alone.key" "${always[@]}"
cat "$work/alone.crt" "$work/alone.key" >alone.pem
cat ca.pem "$work/alone.crt" >trust-both.pem
key=("${rsa[@]}")
certificate server-rsa "/CN=localhost" "$server" ca "${always[@]}"

printf 'secret\n' >password

# The server's key in every form.
export_p12() {
    openssl pkcs12 -export -name server -inkey "$work/server.key" -in "$work/server.crt" -certfile ca.pem \
        -passout pass:secret "$@"
}
export_p12 -out server-openssl.p12
export_p12 -legacy -keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -macalg sha1 -out server-3des.p12
export_p12 -legacy -keypbe PBE-SHA1-RC2-40 -certpbe PBE-SHA1-RC2-40 -macalg sha1 -out server-rc2.p12
export_p12 -keypbe AES-128-CBC -certpbe AES-128-CBC -macalg sha512 -out server-aes128-sha512.p12
import() {
    keytool -importkeystore -noprompt -srckeystore server-openssl.p12 -srcstoretype PKCS12 -srcstorepass secret \
        -deststorepass secret "$@"
}
import -destkeystore server-keytool.p12 -deststoretype PKCS12
import -destkeystore server.jks -deststoretype JKS
encrypted() {
    { cat "$work/server.crt" ca.pem; openssl pkcs8 -topk8 -in "$work/server.key" -passout pass:secret "${@:2}"; } >"$1"
}
encrypted server-encrypted.pem
encrypted server-encrypted-3des.pem -v1 PBE-SHA1-3DES -provider legacy -provider default

# The authority's certificate in every form.
trust() {
    keytool -importcert -noprompt -alias ca -file ca.pem -storepass secret "$@"
}
trust -keystore trust.jks -storetype JKS
trust -keystore trust-keytool.p12 -storetype PKCS12
openssl pkcs12 -export -nokeys -in ca.pem -passout pass:secret -out trust-openssl.p12

# For clients in Java.
openssl pkcs12 -export -name client -inkey "$work/client.key" -in "$work/client.crt" -certfile ca.pem \
    -passout pass:secret -out "$work/client.p12"
keytool -importkeystore -noprompt -srckeystore "$work/client.p12" -srcstoretype PKCS12 -srcstorepass secret \
    -destkeystore client.jks -deststoretype JKS -deststorepass secret
