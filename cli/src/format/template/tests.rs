use super::*;

const DOCUMENT: &str = r#"{"Name":"one","N":5,"F":1.5,"On":true,"Off":false,"Empty":"","List":["a","b"],
    "Nil":null,"Labels":{"x.y":"1","a":"<b>"},"Mounts":[{"D":"/x"},{"D":"/y"}],"Config":{"Cmd":["sh","-c"]}}"#;

fn render(template: &str) -> Result<String, String> {
    let Value::Object(mut fields) = serde_json::from_str(DOCUMENT).unwrap() else { panic!() };
    for (name, value) in &mut fields {
        if let ("Labels", Value::Object(entries)) = (name.as_str(), &value) {
            *value = Value::Map(entries.clone());
        }
    }
    let label = vec![("k".to_owned(), Value::Text("v".to_owned()))];
    fields.push(("Label".to_owned(), Value::Hidden(label)));
    fields.push(("Pointer".to_owned(), Value::Omitted(Box::new(Value::Zero(Zero::Pointer)))));
    Template::parse(template)?.render_document(&Value::Object(fields), &|text| text)
}

/// Each line was rendered by docker's command line.
#[test]
fn templates_print_what_go_prints() {
    for (template, text) in [
        ("{{.Name}}", "one"),
        ("a {{ .N }} b", "a 5 b"),
        ("{{.List}} {{.Labels}} {{.Config.Cmd}}", "[a b] map[a:<b> x.y:1] [sh -c]"),
        ("{{json .Labels}}", r#"{"x.y":"1","a":"<b>"}"#),
        ("{{json .Name}}{{json .Nil}}{{json 1.5}}", "\"one\"null1.5"),
        ("{{.Nil}} {{.Labels.none}} {{.Labels.none.more}}", "<no value> <no value> <no value>"),
        ("{{index .Labels \"x.y\"}} {{index .List 1}} {{index .Name 1}}", "1 b 110"),
        ("{{.Config}} {{index .Mounts 0}}", "{[sh -c]} {/x}"),
        ("{{.Label \"k\"}}|{{.Label \"no\"}}|{{\"k\" | .Label}}", "v||v"),
        ("{{index .Labels \"none\"}}", ""),
        ("{{range .Mounts}}{{.D}} {{end}}", "/x /y "),
        ("{{range $i, $m := .Mounts}}{{$i}}={{$m.D}};{{end}}", "0=/x;1=/y;"),
        ("{{range $k, $v := .Labels}}{{$k}}:{{$v}} {{end}}", "a:<b> x.y:1 "),
        ("{{range .Nil}}x{{else}}none{{end}}", "none"),
        ("{{range 3}}{{.}}{{end}}{{range $i := 2}}{{$i}}{{end}}", "01201"),
        ("{{range .List}}{{if eq . \"b\"}}{{break}}{{end}}{{.}}{{end}}", "a"),
        ("{{range .List}}{{if eq . \"a\"}}{{continue}}{{end}}{{.}}{{end}}", "b"),
        ("{{if .On}}yes{{else}}no{{end}}", "yes"),
        ("{{if .Off}}a{{else if eq .N 5}}b{{else}}c{{end}}", "b"),
        ("{{if and .On (not .Off)}}x{{end}}", "x"),
        ("{{if or .Off .Empty}}x{{else}}y{{end}}", "y"),
        ("{{and 1 0 2}}|{{or 0 \"\" \"x\"}}|{{not 0}}|{{or 1 .Nosuch}}", "0|x|true|1"),
        ("{{with .Config}}{{len .Cmd}}{{end}}", "2"),
        ("{{with \"\"}}x{{else with .Name}}{{.}}{{else}}z{{end}}", "one"),
        ("{{with $x := .Name}}{{$x}}{{end}}{{if $x := .N}}{{$x}}{{end}}", "one5"),
        ("{{.Name | upper | printf \"%s-%s\" \"x\"}}", "x-ONE"),
        ("{{upper .Name}}{{lower \"ABC\"}}{{title \"it's a-b\"}}", "ONEabcIt'S A-B"),
        ("{{join .List \",\"}} {{split \"a,b\" \",\"}}", "a,b [a b]"),
        (
            "{{print \"a\" \"b\"}}|{{print 1 2}}|{{print \"a\" 1 2 \"b\"}}|{{print 1 \"a\"}}",
            "ab|1 2|a1 2b|1a",
        ),
        ("{{print true false 1.5}} {{print nil}}{{print}}", "true false 1.5 <nil>"),
        ("{{println .Name .N nil}}", "one 5 <nil>\n"),
        (
            "{{truncate .Name 2}}{{truncate .Name 9}}{{pad .Name 1 2}}{{pad \"\" 1 2}}",
            "onone one  ",
        ),
        ("{{slice .Name 1 2}}{{slice .Name}}{{slice .Name 2}}{{slice .List 1}}", "nonee[b]"),
        ("{{eq .Name \"x\" \"one\"}}{{ne .N 5}}{{lt .N 6}}{{ge .N 6}}", "truefalsetruefalse"),
        ("{{lt 1.5 2.5}}{{gt 3 2}}{{le \"a\" \"b\"}}{{gt .N -1}}", "truetruetruetrue"),
        ("{{eq .N nil}}{{eq nil nil}}{{eq .Labels nil}}", "falsetruefalse"),
        ("{{$x := .Name}}{{$x}}{{$.N}}", "one5"),
        (
            "{{$x := 1}}{{$x}}{{$x = 2}}{{$x}}{{if true}}{{$x = 3}}{{$x := 4}}{{$x}}{{end}}{{$x}}",
            "1243",
        ),
        ("a  {{- /* c */ -}}  b {{- .N -}} c", "ab5c"),
        ("{{/* c */}}x{{- /* d */}} y", "x y"),
        ("a {{- \" b \" -}} c{{- 3}}", "a b c3"),
        (
            "{{(index .Mounts 0).D}}{{((.Name))}}{{ (.Name | upper) }}{{if (.Name)}}y{{end}}",
            "/xoneONEy",
        ),
        ("{{\"\\\"q\\\"\"}}{{`r\\n \"x\"`}}{{\"}}\"}}", "\"q\"r\\n \"x\"}}"),
        ("{{'a'}} {{'\\n'}} {{'\u{e9}'}} {{'\\''}}", "97 10 233 39"),
        (
            "{{1.5}} {{1e3}} {{0x1F}} {{-5}} {{+5}} {{1_000}} {{017}} {{.1}}",
            "1.5 1000 31 -5 5 1000 15 0.1",
        ),
        ("{{1.0}} {{100000000.0}} {{1e21}} {{0.000001}} {{1e-7}}", "1 1e+08 1e+21 1e-06 1e-07"),
        ("{{json \"a<b>&\"}}", "\"a<b>&\""),
        ("{{len .Name}}{{len \"\u{e9}\"}}{{.Name |}}{{. | len}}", "32one13"),
        (
            "{{define \"x\"}}<{{.Name}}>{{end}}{{template \"x\" .}}{{template \"x\"}}",
            "<one><<no value>>",
        ),
        ("{{block \"b\" .Name}}[{{.}}]{{end}}", "[one]"),
        ("{{js \"a'b\\\"<c>&\\\\\\n=\"}}", "a\\'b\\\"\\u003Cc\\u003E\\u0026\\\\\\u000A\\u003D"),
        (
            "{{html \"a<b>&'\\\"\\x00\"}} {{html 1 \"a\" 2 3}}",
            "a&lt;b&gt;&amp;&#39;&#34;\u{fffd} 1a2 3",
        ),
        ("{{urlquery \"a b&c/\u{e9}\" \"d\"}}", "a+b%26c%2F%C3%A9d"),
        ("{{printf \"%-5s|%5d|%q|%v\" .Name .N .Name .On}}", "one  |    5|\"one\"|true"),
        (
            "{{printf \"%s\" 5}}|{{printf \"%d\" \"x\"}}|{{printf \"%z\" 1}}",
            "%!s(int=5)|%!d(string=x)|%!z(int=1)",
        ),
        (
            "{{printf \"%d\"}}|{{printf \"%d\" 1 2}}|{{printf \"%\"}}",
            "%!d(MISSING)|1%!(EXTRA int=2)|%!(NOVERB)",
        ),
        (
            "{{printf \"%05d|%+d|%x|%X|%o|%b|%c|%U\" 42 42 255 255 8 5 65 65}}",
            "00042|+42|ff|FF|10|101|A|U+0041",
        ),
        ("{{printf \"%x|% x|%#x\" \"hi\" \"hi\" 255}}", "6869|68 69|0xff"),
        (
            "{{printf \"%f|%.2f|%8.3f|%e|%g\" 1.5 1.5 1.5 1.5 1.5}}",
            "1.500000|1.50|   1.500|1.500000e+00|1.5",
        ),
        (
            "{{printf \"%v|%q|%d\" .List .List .List}}",
            "[a b]|[\"a\" \"b\"]|[%!d(string=a) %!d(string=b)]",
        ),
        (
            "{{printf \"%T %T %#v %[2]s %*d\" 1 \"a\" \"b\" 5 42}}",
            "int string \"b\" a %!d(BADWIDTH)",
        ),
        ("{{printf \"%[2]s %[1]s\" \"a\" \"b\"}}|{{printf \"%*d\" 5 42}}", "b a|   42"),
        ("{{printf \"%v %d %s\" nil nil nil}}", "<nil> %!d(<nil>) %!s(<nil>)"),
        ("{{printf \"%.2s|%5.1s|%.10d\" \"abc\" \"abc\" 5}}", "ab|    a|0000000005"),
        ("{{.N | printf \"%d-%s\" 5}}", "5-%!s(int=5)"),
    ] {
        let rendered = render(template).unwrap_or_else(|error| panic!("{template}: {error}"));
        assert_eq!(rendered, text, "{template}");
    }
}

#[test]
fn what_is_no_template_is_told_as_docker_tells_it() {
    for (template, words) in [
        ("{{.ID", "unclosed action"),
        ("{{foo .}}", "function \"foo\" not defined"),
        ("{{if .On}}", "unexpected EOF"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{else}}", "unexpected {{else}}"),
        ("{{if .On}}a{{else}}b{{else}}c{{end}}", "expected end; found {{else}}"),
        ("{{$x}}", "undefined variable \"$x\""),
        ("{{$x.y := 1}}", "undefined variable \"$x\""),
        ("{{}}", "missing value for command"),
        ("{{if}}a{{end}}", "missing value for if"),
        ("{{(.N}}", "unclosed left paren"),
        ("{{.N)}}", "unexpected right paren"),
        ("{{\"abc}}", "unterminated quoted string"),
        ("{{'ab'}}", "malformed character constant: 'ab'"),
        ("{{/* c }}", "unclosed comment"),
        ("{{ /* c */ }}x", "unexpected \"/\" in command"),
        ("{{1e400}}", "illegal number syntax: \"1e400\""),
        ("{{99999999999999999999}}", "integer overflow: \"99999999999999999999\""),
        ("{{1.Name}}", "bad number syntax: \"1.N\""),
        ("{{.Na@me}}", "bad character U+0040 '@'"),
        ("{{@}}", "unexpected \"@\" in command"),
        ("{{.Name | 5}}", "non executable command in pipeline stage 2"),
        ("{{.Name | | upper}}", "unexpected \"|\" in command"),
        ("{{.Name.}}", "unexpected <.> in operand"),
        ("{{..Name}}", "unexpected . after term \".\""),
        ("{{\"a\".Name}}", "unexpected . after term \"\\\"a\\\"\""),
        ("{{nil.Name}}", "unexpected . after term \"nil\""),
        ("{{break}}", "{{break}} outside {{range}}"),
        ("{{range .List}}{{else}}{{break}}{{end}}", "{{break}} outside {{range}}"),
        ("{{define x}}{{end}}", "unexpected \"x\" in define clause"),
        ("{{define \"x\"}}", "unexpected EOF"),
        ("{{if .On}}{{define \"x\"}}{{end}}{{end}}", "unexpected <define> in command"),
        ("{{template}}", "unexpected \"}}\" in template clause"),
        ("{{.Name | template \"x\"}}", "unexpected <template> in command"),
        ("{{range $i, $e, $z := .List}}{{end}}", "too many declarations in range"),
        ("{{$a, $b := 1}}", "too many declarations in command"),
        ("{{$x := 1, 2}}", "unexpected \",\" in operand"),
        ("{{.Name = 1}}", "unexpected \"=\" in operand"),
        ("{{end .Name}}", "unexpected \".Name\" in end"),
        ("{{1i}}", "complex numbers are not supported: \"1i\""),
    ] {
        assert_eq!(render(template).unwrap_err(), format!("template: :1: {words}"), "{template}");
    }
    let on_line_two = render("a\n{{foo}}").unwrap_err();
    assert_eq!(on_line_two, "template: :2: function \"foo\" not defined");
}

#[test]
fn what_fails_is_told_as_docker_tells_it() {
    for (template, words) in [
        ("{{.Nosuch}}", "2: executing \"\" at <.Nosuch>: map has no entry for key \"Nosuch\""),
        ("{{.Config.X}}", "9: executing \"\" at <.Config.X>: map has no entry for key \"X\""),
        (
            "{{.Pointer.X}}",
            "10: executing \"\" at <.Pointer.X>: map has no entry for key \"Pointer\"",
        ),
        (
            "{{.Name.X}}",
            "7: executing \"\" at <.Name.X>: can't evaluate field X in type interface {}",
        ),
        (
            "{{and true .Nosuch}}",
            "11: executing \"\" at <.Nosuch>: map has no entry for key \"Nosuch\"",
        ),
        (
            "{{index .List 9}}",
            "2: executing \"\" at <index .List 9>: error calling index: index out of range: 9",
        ),
        (
            "{{index .List \"a\"}}",
            "2: executing \"\" at <index .List \"a\">: error calling index: cannot index slice/array with type string",
        ),
        (
            "{{index .Labels 1}}",
            "2: executing \"\" at <index .Labels 1>: error calling index: value has type int; should be string",
        ),
        (
            "{{index nil 1}}",
            "2: executing \"\" at <index nil 1>: error calling index: index of untyped nil",
        ),
        (
            "{{index}}",
            "2: executing \"\" at <index>: wrong number of args for index: want at least 1 got 0",
        ),
        ("{{ne 1 2 3}}", "2: executing \"\" at <ne>: wrong number of args for ne: want 2 got 3"),
        (
            "{{eq 1 1.0}}",
            "2: executing \"\" at <eq 1 1.0>: error calling eq: incompatible types for comparison",
        ),
        (
            "{{lt 1 1.5}}",
            "2: executing \"\" at <lt 1 1.5>: error calling lt: incompatible types for comparison",
        ),
        (
            "{{lt true false}}",
            "2: executing \"\" at <lt true false>: error calling lt: invalid type for comparison",
        ),
        (
            "{{lt 1 nil}}",
            "2: executing \"\" at <lt 1 nil>: error calling lt: invalid type for comparison",
        ),
        (
            "{{eq 1}}",
            "2: executing \"\" at <eq 1>: error calling eq: missing argument for comparison",
        ),
        (
            "{{eq .List .List}}",
            "2: executing \"\" at <eq .List .List>: error calling eq: non-comparable type [a b]: []interface {}",
        ),
        (
            "{{slice .Name 1 2 3}}",
            "2: executing \"\" at <slice .Name 1 2 3>: error calling slice: cannot 3-index slice a string",
        ),
        (
            "{{slice .List 1 0}}",
            "2: executing \"\" at <slice .List 1 0>: error calling slice: invalid slice index: 1 > 0",
        ),
        (
            "{{slice .List -1}}",
            "2: executing \"\" at <slice .List -1>: error calling slice: index out of range: -1",
        ),
        ("{{call nil}}", "2: executing \"\" at <call nil>: error calling call: call of nil"),
        (
            "{{call .Name}}",
            "2: executing \"\" at <call .Name>: error calling call: non-function of type string",
        ),
        ("{{nil}}", "2: executing \"\" at <nil>: nil is not a command"),
        ("{{5 .Name}}", "2: executing \"\" at <5>: can't give argument to non-function 5"),
        ("{{.Name .N}}", "2: executing \"\" at <.Name>: Name is not a method but has arguments"),
        (
            "{{.Nosuch | .Name}}",
            "2: executing \"\" at <.Nosuch>: map has no entry for key \"Nosuch\"",
        ),
        ("{{len 5}}", "2: executing \"\" at <len 5>: error calling len: len of type int"),
        ("{{upper 5}}", "8: executing \"\" at <5>: expected string; found 5"),
        (
            "{{upper .List}}",
            "8: executing \"\" at <.List>: wrong type for value; expected string; got []interface {}",
        ),
        (
            "{{join .Name \",\"}}",
            "7: executing \"\" at <.Name>: wrong type for value; expected []string; got string",
        ),
        (
            "{{truncate \"abc\" \"x\"}}",
            "17: executing \"\" at <\"x\">: expected integer; found \"x\"",
        ),
        ("{{range .Name}}x{{end}}", "8: executing \"\" at <.Name>: range can't iterate over one"),
        (
            "{{template \"no\" .}}",
            "11: executing \"\" at <{{template \"no\" .}}>: template \"no\" not defined",
        ),
        ("{{$y = 1}}", "7: executing \"\" at <1>: undefined variable: $y"),
        ("{{printf 5}}", "9: executing \"\" at <5>: expected string; found 5"),
    ] {
        assert_eq!(render(template).unwrap_err(), format!("template: :1:{words}"), "{template}");
    }
    let inner = render("{{define \"x\"}}\n {{.X}}{{end}}{{template \"x\" .}}").unwrap_err();
    assert_eq!(inner, "template: :2:3: executing \"x\" at <.X>: map has no entry for key \"X\"");
}

#[test]
fn nothing_runs_without_end() {
    for template in [
        "{{if .On}}".repeat(100),
        format!("{{{{{}1}}}}", "(".repeat(100)),
        format!("{{{{if .On}}}}{}", "{{else if .On}}".repeat(100)),
        "{{define \"x\"}}{{template \"x\"}}{{end}}{{template \"x\"}}".to_owned(),
        "{{range 2000000}}{{end}}".to_owned(),
        format!("{}{}", "{{range 1000}}".repeat(3), "{{end}}".repeat(3)),
    ] {
        assert!(render(&template).is_err(), "{template}");
    }
}

#[test]
fn headings_are_made_of_the_fields() {
    let heading = |template: &str| {
        Template::parse(template).unwrap().heading(&|name| name.to_uppercase()).unwrap()
    };
    for (template, line) in [
        ("{{.ID}}\t{{.Label \"com.x.some-name_z\"}}", "ID\tsome name z"),
        (
            "{{.Names|upper}} {{truncate .Names 2}} {{json .Names}} {{len .Names}}",
            "NAMES NAMES NAMES 5",
        ),
        ("{{if eq .State \"running\"}}{{.Names}}{{end}}|", "|"),
        ("{{.A}} {{\"x\"}}", "A x"),
    ] {
        assert_eq!(heading(template), line, "{template}");
    }
}
