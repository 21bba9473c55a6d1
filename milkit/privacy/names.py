"""Some frequent given names and surnames, by which a name is told that stands alone, as in a file's name.

Only what means nothing else: no ``Klein``, ``Jung``, ``Young`` or ``May``, no stain, score or disease that is called
after a person (Wright, Giemsa, Auer, Cox, Meier), and nothing shorter than four letters, since patient codes such as
``IDA`` or ``TOM`` are. Umlauts are written out here (``mueller``), and in what is compared.
"""


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


GIVEN = words(
    """
    aaron abdul abdullah adrian agnes agnieszka ahmad ahmed aleksandra alessandro alexander alexandra alfred alice
    alicia alina amelie anastasia andrea andreas andrew angela angelika anita anja anna anneliese annette antje
    antonio anton antonia arthur ayse barbara bernd bernhard bettina bianca birgit birgitta brigitte carlos carmen
    carola caroline catherine charles charlotte christa christian christiane christina christine christoph
    christopher claudia claus clemens cornelia daniel daniela david deborah denise dennis detlef diana dieter
    dimitri dirk dominik donald doris dorothea edeltraud eberhard edith eduard edward eleonore elena elfriede
    elisabeth elizabeth elke ella emanuel emilia emily emma erika ernst erwin eugen fatima fatma felix ferdinand
    florian francesca francesco frank franz franziska friedrich fritz gabriel gabriele georg george gerda gerhard
    gerlinde gertrud gisela giovanni giuseppe grzegorz guenter guenther gudrun guido gustav hannah hannelore hanna
    hans harald hartmut hassan hatice heather hedwig heidi heike heiko heiner heinrich heinz helena helene helga
    helmut henry herbert hermann hildegard holger horst hubert hussein ibrahim ilse inge ingeborg ingo ingrid irene
    irina iris irmgard isabel isabella ivan jacob jakob james jana janina jasmin javier jennifer jens jessica
    jessika joachim joanna jochen johann johanna johannes john jonas jonathan jorge jose joseph josef josefine
    joshua juan judith julia julian juergen jutta karin karl karla karolina karsten katarzyna katharina kathrin
    katja kenneth kevin khaled kirsten klaus konrad konstantin krzysztof larissa laura lars leon leonie liam linda
    lieselotte lothar louise luca lucia ludwig luis luise lukas luke magdalena malgorzata manfred manuel manuela
    marcel marco marcus margarete margret maria mariam marianne marie marina mario marion markus marlene martha
    martin martina mathilde matthew matthias maximilian mehmet melanie meike michael michaela michelle miguel
    mikhail mohamed mohammed monika moritz muhammad mustafa nadine natalia natalie natascha nicholas nicole niklas
    nikolai nils nina norbert olga oliver olivia oskar otto pascal patricia patrick paul paula pauline pavel pedro
    peter petra philipp pierre piotr rainer ralf raphael rebecca reinhard reinhold renate ricardo richard rita
    robert roland rolf roswitha rudolf ruth sabine samuel sandra sara sarah sebastian sergei sibylle siegfried
    sigrid silke silvia simone sofia sonja sophia sophie stefan stefanie steffen stephan stephanie stephen susan
    susanna susanne svetlana sylvia tanja tatjana theodor theresa thomas thorsten tobias torsten ulrich ulrike
    ursula vanessa vera verena veronika victor viktor vincent vladimir volker waldemar walter waltraud werner
    wilhelm william wolfgang xavier yusuf yvonne zeynep
    """
)
"""Given names."""

SURNAMES = words(
    """
    abdallah ackermann adamczyk albrecht alvarez anderson andersson andreev arslan bauer baumann becker behrens
    bergmann bianchi boehm brandt braun brinkmann busch celik chaudhry davies demir dietrich dubois durand ebert
    eriksson esposito evans fernandez ferrari fischer fleischer foerster franke fuchs garcia geiger gonzalez
    grabowski gutierrez hansen hartmann hernandez herrmann hoffmann hofmann hughes huber ivanov ivanova jankowski
    jansen jensen johansson johnson jones kamara kaminski kaufmann keller koehler kovacs kowalski kowalska kozlov
    kraemer krause krueger kumar kuznetsov lehmann lewandowski lindner lopez lorenz maier martinez mayer meyer
    mikhailov miller moreau morozov mueller mulder muller nguyen nielsen nowak nikolaev oezdemir oeztuerk olsen
    papadopoulos pavlov peeters pereira petersen peterson petrov petrova pfeiffer pietrzak popescu popov ramirez
    reinhardt ricci richter rodriguez romano rossi russo sahin sanchez santos schaefer schmid schmidt schmitt
    schmitz schneider schreiber schroeder schubert schulte schultz schulz schulze schumacher schuster schwarz seidel
    silva simpson smirnov smith sokolov sorensen stefanov svensson szabo taylor thompson tkachenko torres vasiliev
    vogel vogt volkov wagner walczak weber wilson winkler wisniewski wojcik wolff yilmaz yildiz zhang ziegler
    zimmermann
    """
)
"""Surnames."""

LISTED = GIVEN | SURNAMES
"""Both."""
