package manifest_test

import (
	"encoding/json"
	"fmt"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

func ExampleParse() {
	doc, err := manifest.Parse("", []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`))
	fmt.Println(doc.Kind, len(doc.Successors()), err)
	// Output: index 0 <nil>
}

func ExampleCheckJSON() {
	fmt.Println(manifest.CheckJSON([]byte(`{"layers":[],"config":{},"l\u0061yers":[]}`)))
	// Output: an object has the key "layers" twice
}

func ExampleNegotiate() {
	accept := manifest.ParseAccept([]string{"application/vnd.docker.distribution.manifest.v2+json"})
	for _, mediaType := range manifest.MediaTypes() {
		decision, err := manifest.Negotiate(accept, v1.Descriptor{MediaType: mediaType}, true)
		fmt.Printf("%v %q\n", decision, berth.Code(err))
	}
	// Output:
	// refused "MANIFEST_UNKNOWN"
	// refused "MANIFEST_UNKNOWN"
	// default child ""
	// as stored ""
}

func ExampleSelect() {
	raw := []byte(`{"schemaVersion":2,"manifests":[
	{"digest":"sha256:e692418e4cbaf90ca69d05a66403747baa33ee08806650b51fab815ad7fc331f","size":7143,"platform":{"os":"linux","architecture":"amd64"}},
	{"digest":"sha256:5b0bcabd1ed22e9fb1310cf6c2dec7cdef19f0ad69efa1f392e94a4333501270","size":7682,"platform":{"os":"linux","architecture":"arm","variant":"v6"}}]}`)
	doc, err := manifest.Parse("", raw)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, name := range []string{"linux/arm/v7", "linux/riscv64"} {
		platform, err := manifest.ParsePlatform(name)
		if err != nil {
			fmt.Println(err)
			return
		}
		child, err := manifest.Select(doc, platform)
		fmt.Println(child.Size, err)
	}
	// Output:
	// 7682 <nil>
	// 0 manifest unknown: no supported platform: linux/riscv64 is asked for, the index has linux/amd64, linux/arm/v6
}

func ExampleInspect() {
	config := []byte(`{"os":"linux","architecture":"amd64","config":{"Cmd":["sh"]},"history":[{"created_by":"ADD / "}]}`)
	desc := manifest.Descriptor(v1.MediaTypeImageConfig, config)
	raw := fmt.Appendf(nil, `{"schemaVersion":2,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[`+
		`{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef","size":1024}]}`,
		desc.MediaType, desc.Digest, desc.Size)
	report, err := manifest.Inspect(manifest.Fetched{
		Ref:      berth.Reference{Repository: "app/hello", Tag: "v1"},
		Manifest: berth.Manifest{Descriptor: manifest.Descriptor(v1.MediaTypeImageManifest, raw), Raw: raw},
		Config:   config,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	report.Digest = "" // for a shorter example
	text, err := json.Marshal(report)
	fmt.Println(string(text), err)
	// Output:
	// {"name":"app/hello","tag":"v1","digest":"","mediaType":"application/vnd.oci.image.manifest.v1+json","architecture":"amd64","os":"linux","cmd":["sh"],"layers":[{"digest":"sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef","size":1024,"mediaType":"application/vnd.oci.image.layer.v1.tar","command":"ADD / "}],"totalSize":1121} <nil>
}

func ExampleDefaultTag() {
	fmt.Println(manifest.DefaultTag([]string{"1.0", "1.1"}))
	fmt.Println(manifest.DefaultTag([]string{"1.0", "latest"}))
	// Output:
	// 1.0 <nil>
	// latest <nil>
}
