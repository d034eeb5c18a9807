package sdk_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/berthoci/berth"
)

func ExampleImages_Inspect() {
	registry, _, end := exampleRegistry()
	defer end()
	report, err := registry.Inspect(context.Background(), "app/hello", nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.Name, report.Tag, report.Digest.Encoded()[:12])
	fmt.Println(report.ArtifactType, report.RepoTags)
	// Output:
	// app/hello v1 1ccb399e44f3
	// application/vnd.oci.empty.v1+json [v1]
}

func ExampleImages_Tag() {
	registry, _, end := exampleRegistry()
	defer end()
	desc, err := registry.Tag(context.Background(), "app/hello:v1", "v1.0", "stable")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(desc.Digest.Encoded()[:12])
	for tag, err := range registry.Tags(context.Background(), "app/hello") {
		fmt.Println(tag, err)
	}
	// Output:
	// 1ccb399e44f3
	// stable <nil>
	// v1 <nil>
	// v1.0 <nil>
}

func ExampleImages_Remove() {
	registry, _, end := exampleRegistry()
	defer end()
	removed, err := registry.Remove(context.Background(), "app/hello:v1", "app/hello:v2")
	fmt.Println(removed)
	fmt.Println(errors.Is(err, berth.ErrManifestUnknown)) // of app/hello:v2
	// Output:
	// [app/hello:v1]
	// true
}
